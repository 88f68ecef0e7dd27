//! Keys that have moved: the old spelling is accepted with a warning.

use super::error::Fault;
use super::tree::{Entry, Located, Tree, Value};

/// Notes on the spelling of a file, for the log. They do not change what the configuration means, so configurations that
/// differ in their notes alone are equal.
#[derive(Clone, Debug, Default)]
pub struct Warnings {
    found: Vec<Fault>,
    /// One line each, with the name of the file.
    pub lines: Vec<String>,
}

impl PartialEq for Warnings {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Warnings {
    /// Moves a key from its old place in the tree to its new one.
    pub(crate) fn move_keys(tree: &mut Tree, path: &str) -> Result<Self, Fault> {
        const KEY: &str = "max_streams";
        let root = Located {
            tree,
            path: path.to_owned(),
        };
        let old = root.at("liveness").at("http2");
        let Some(entry) = old.entry(KEY).filter(|_| old.path.ends_with("liveness.http2")) else {
            return Ok(Self::default());
        };
        let old = Fault {
            at: entry.at,
            ..old
                .inside(entry)
                .fault("deprecated key; use http2.max_streams instead")
        };
        let entry = entry.clone();
        if let Some(new) = root.find("http2").as_ref().and_then(|http2| http2.entry(KEY)) {
            let problem = format!(
                "http2.max_streams is already on line {} and replaces this key",
                new.at.line
            );
            return Err(Fault { problem, ..old });
        }
        let liveness = tree
            .value_mut("liveness")
            .and_then(|liveness| liveness.value_mut("http2"));
        if let Some(Value::Mapping(entries)) = liveness.map(|http2| &mut http2.value) {
            entries.retain(|entry| entry.key != KEY);
        }
        match tree.value_mut("http2").map(|http2| &mut http2.value) {
            Some(Value::Mapping(entries)) => entries.push(entry),
            Some(_) => {}
            None => {
                if let Value::Mapping(entries) = &mut tree.value {
                    entries.push(Entry {
                        key: "http2".to_owned(),
                        at: entry.at,
                        value: Tree {
                            at: entry.at,
                            value: Value::Mapping(vec![entry]),
                        },
                    });
                }
            }
        }
        Ok(Self {
            found: vec![old],
            lines: Vec::new(),
        })
    }

    pub(crate) fn name_file(&mut self, name: &str) {
        let line = |fault: Fault| fault.in_file(name.to_owned()).to_string();
        self.lines = self.found.drain(..).map(line).collect();
    }
}
