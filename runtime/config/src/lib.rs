//! From a YAML file to a configuration that is valid by type.
//!
//! One parse produces a [`Tree`](document::Tree) in which every key and value has its place. The tree is the input of serde:
//! each section (`section`) refuses unknown keys, each kind of key refuses invalid values, and each section then checks what
//! depends on several keys. All errors are located alike and have the form
//! `file:line:column: key: problem; allowed: …`.
//!
//! Invariants: no number in these sources is a default or a bound (`eddy_core::policy` holds them), and the effective
//! configuration parses back to the same configuration.

mod byte_size;
mod de;
mod duration;
mod error;
mod initiator;
mod responder;
mod section;
mod shared;
mod text;
mod tree;
mod warnings;

use std::fs;
use std::path::Path;

use serde::Serialize;

pub use self::byte_size::ByteSize;
pub use self::error::{ConfigError, Place};
pub use self::initiator::{
    ClusterConfig, DialConfig, HostPort, InitiatorConfig, LivenessConfig, PingConfig, Protocol, ServiceRoute,
    ServicesConfig, StreamsConfig, TunnelConfig,
};
pub use self::responder::{EgressConfig, EgressRoute, HostIdHeader, ListenConfig, ResponderConfig};
pub use self::shared::{
    AccessLogConfig, AdminConfig, ApiConfig, HostName, Http2Config, LogConfig, LogFormat, MemoryConfig,
    NodeConfig, StatsConfig, TracesConfig,
};
pub use self::warnings::Warnings;
pub use eddy_core::router::Names;

/// The located YAML tree, for other formats that embed a configuration.
pub mod document {
    pub use super::duration::{Text as DurationText, parse as duration};
    pub use super::error::Fault;
    pub use super::tree::{Entry, Tree, Value, YamlError};
}

use self::error::Fault;
use self::tree::{Located, Tree, Value, YamlError};

/// The configuration of one process. The keys of the file show the role.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Config {
    /// Accepts tunnels and sends requests through them.
    Responder(ResponderConfig),
    /// Opens tunnels and serves the requests that arrive through them.
    Initiator(InitiatorConfig),
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first problem and its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses a text; `name` takes the place of a file's path in messages.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first problem and its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let name = name.to_owned();
        match Tree::parse(text) {
            Ok(Tree {
                value: Value::Null, ..
            }) => Err(ConfigError::Empty { name }),
            Ok(tree) => match Self::from_tree(tree, String::new()) {
                Ok(mut config) => {
                    if let Self::Initiator(config) = &mut config {
                        config.warnings.name_file(&name);
                    }
                    Ok(config)
                }
                Err(fault) => Err(fault.in_file(name)),
            },
            Err(YamlError { at, message }) => Err(ConfigError::Yaml { name, at, message }),
        }
    }

    /// The configuration as YAML, with every default. It parses back to the same configuration, and contains no secret,
    /// because no key holds a secret.
    pub fn effective(&self) -> String {
        let mut options = serde_saphyr::SerializerOptions::default();
        options.compact_list_indent = false;
        options.prefer_block_scalars = false;
        match serde_saphyr::to_string_with_options(self, options) {
            Ok(text) => text,
            Err(error) => unreachable!("a configuration that cannot be written: {error}"),
        }
    }

    /// Reads a part of a document as a configuration; `path` leads to it and begins each key in an error.
    ///
    /// # Errors
    ///
    /// A [`Fault`] names the first problem and its place.
    pub fn from_tree(mut tree: Tree, path: String) -> Result<Self, Fault> {
        match role(&Located {
            tree: &tree,
            path: path.clone(),
        })? {
            Role::Responder => {
                let root = Located { tree: &tree, path };
                let mut config: ResponderConfig = de::read(&root)?;
                config.finish(&root)?;
                Ok(Self::Responder(config))
            }
            Role::Initiator => {
                let warnings = Warnings::move_keys(&mut tree, &path)?;
                let root = Located { tree: &tree, path };
                let mut config: InitiatorConfig = de::read(&root)?;
                config.finish(&root)?;
                config.warnings = warnings;
                Ok(Self::Initiator(config))
            }
        }
    }
}

enum Role {
    Responder,
    Initiator,
}

/// The role that the keys of a file show.
fn role(root: &Located<'_>) -> Result<Role, Fault> {
    if !matches!(root.tree.value, Value::Mapping(_)) {
        let wrong = de::read::<std::collections::BTreeMap<String, serde::de::IgnoredAny>>(root);
        return Err(wrong.err().unwrap_or_else(|| root.fault("must be a mapping")));
    }
    let (mut responder, mut initiator) = (None, None);
    for entry in root.tree.entries() {
        let is_list = matches!(entry.value.value, Value::List(_));
        let is_mapping = matches!(entry.value.value, Value::Mapping(_));
        let (of, sign) = match entry.key.as_str() {
            "egress" => (&mut responder, "`egress`"),
            "clusters" => (&mut initiator, "`clusters`"),
            "routes" => (&mut initiator, "`routes`"),
            "tunnels" if is_mapping => (&mut responder, "the mapping under `tunnels`"),
            "tunnels" if is_list => (&mut initiator, "the list under `tunnels`"),
            _ => continue,
        };
        of.get_or_insert((sign, entry.at.line));
    }
    match (responder, initiator) {
        (Some(_), None) => Ok(Role::Responder),
        (None, Some(_)) => Ok(Role::Initiator),
        (Some((responder, line)), Some((initiator, other))) => Err(root.fault(format!(
            "{responder} (line {line}) makes this a responder, {initiator} (line {other}) an initiator; a file configures \
             one of them"
        ))),
        (None, None) => Err(root.fault(
            "neither a responder (`egress`, a mapping under `tunnels`) nor an initiator (`clusters`, `routes`, a list \
             under `tunnels`)",
        )),
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
