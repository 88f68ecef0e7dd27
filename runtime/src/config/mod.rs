//! From a YAML file to a configuration that is valid by type.
//!
//! The document becomes a tree whose keys and values know their places (`tree`); the readers of the sections take
//! it apart key by key (`section`) and refuse whatever they do not know. Nothing past this module sees an
//! unchecked value, and every refusal is one line that names the file, the line, the key and what is allowed.

mod effective;
mod error;
mod initiator;
mod responder;
mod section;
mod shared;
mod tree;
mod value;

use std::fs;
use std::path::Path;

pub use self::error::{ConfigError, Place, Problem, Sign};
pub use self::initiator::{
    ClusterConfig, DialConfig, HostPort, InitiatorConfig, LivenessConfig, Protocol, ServiceRoute,
    ServicesConfig, TunnelConfig,
};
pub use self::responder::{EgressConfig, EgressRoute, HostIdHeader, ListenConfig, ResponderConfig};
pub use self::shared::{
    AccessLogConfig, AdminConfig, ApiConfig, Http2Config, LogConfig, LogFormat, NodeConfig, StatsConfig,
    TracesConfig,
};
pub use eddy_core::router::Names;

/// What reads a strict YAML document of any kind and blames file, line and key: other formats that embed a
/// configuration read theirs with it.
pub mod document {
    pub use super::error::Fault;
    pub use super::section::{Item, Section};
    pub use super::tree::{Entry, Tree, Value, YamlError};
    pub use super::value::{cluster_id, duration, node_id, tenant_id};
}

use self::error::Fault;
use self::section::Item;
use self::tree::{Tree, Value, YamlError};

/// The configuration of one process. The keys of the file show the role.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// Accepts tunnels and sends requests through them.
    Responder(ResponderConfig),
    /// Opens tunnels and answers the requests that come through them.
    Initiator(InitiatorConfig),
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first problem, and where it is.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a text; `name` stands in messages where a file's path would.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first problem, and where it is.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let name = name.to_owned();
        match Tree::parse(text) {
            Ok(Tree {
                value: Value::Null, ..
            }) => Err(ConfigError::Empty { name }),
            Ok(tree) => Self::from_tree(&tree).map_err(|fault| fault.in_file(name)),
            Err(YamlError { at, message }) => Err(ConfigError::Yaml { name, at, message }),
        }
    }

    /// The configuration as YAML, with every default spelled out. It parses back to the same configuration,
    /// and nothing in it is secret: no key holds a secret.
    pub fn effective(&self) -> String {
        match self {
            Self::Responder(config) => effective::responder(config),
            Self::Initiator(config) => effective::initiator(config),
        }
    }

    fn from_tree(tree: &Tree) -> Result<Self, Fault> {
        Self::from_item(&Item {
            tree,
            path: String::new(),
        })
    }

    /// Reads a part of a document as a configuration; `root.path` begins each key that is blamed.
    ///
    /// # Errors
    ///
    /// A [`Fault`] names the first problem, and where it is.
    pub fn from_item(root: &Item<'_>) -> Result<Self, Fault> {
        let (mut responder, mut initiator) = (None, None);
        for (key, at, item) in root.named()? {
            match (key, &item.tree.value) {
                ("egress", _) => _ = responder.get_or_insert(Sign { what: "`egress`", at }),
                ("tunnels", Value::Mapping(_)) => {
                    _ = responder.get_or_insert(Sign {
                        what: "the mapping under `tunnels`",
                        at,
                    });
                }
                ("clusters", _) => {
                    _ = initiator.get_or_insert(Sign {
                        what: "`clusters`",
                        at,
                    })
                }
                ("routes", _) => _ = initiator.get_or_insert(Sign { what: "`routes`", at }),
                ("tunnels", Value::List(_)) => {
                    _ = initiator.get_or_insert(Sign {
                        what: "the list under `tunnels`",
                        at,
                    });
                }
                (_, _) => {}
            }
        }
        match (responder, initiator) {
            (Some(_), None) => ResponderConfig::read(root).map(Self::Responder),
            (None, Some(_)) => InitiatorConfig::read(root).map(Self::Initiator),
            (Some(responder), Some(initiator)) => {
                Err(root.fault(Problem::BothRoles { responder, initiator }))
            }
            (None, None) => Err(root.fault(Problem::NoRole)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Config::parse("x.yaml", text).unwrap_err().to_string()
    }

    #[test]
    fn the_keys_show_the_role() {
        assert_eq!(
            message("node: {id: a, cluster: b}\negress: {}\nroutes: []\n"),
            "x.yaml:1:1: `egress` (line 2) makes this a responder, `routes` (line 3) an initiator; a file configures one of them"
        );
        assert!(message("node: {}").starts_with("x.yaml:1:1: neither a responder (`egress`,"));
        assert_eq!(message("[]"), "x.yaml:1:1: must be a mapping, not a list");
    }
}
