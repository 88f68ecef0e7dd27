//! `/stats` as text, with Envoy's parameters.

use std::fmt;

use eddy_core::stats::Sheet;
use regex_lite::Regex;
use serde::Serialize;

use crate::http::query::Parameters;

/// What of the numbers is asked for.
pub(super) struct Query {
    filter: Option<Regex>,
    used_only: bool,
    hidden: bool,
    pub(super) format: Format,
}

/// How the numbers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
    Prometheus,
}

/// The numbers as JSON, in Envoy's form.
#[derive(Debug, Serialize)]
pub(super) struct Lines {
    stats: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    value: u64,
}

/// A parameter that cannot be understood.
#[derive(Debug)]
pub(super) enum QueryError {
    /// `filter` is no regular expression.
    Filter(String),
    /// `hidden` is neither `include` nor `exclude`.
    Hidden(String),
    /// `format` is none that there is.
    Format(String),
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(why) => write!(f, "filter: not a regular expression: {why}"),
            Self::Format(value) => {
                write!(f, "format: {value:?} is unknown; allowed: text, json, prometheus")
            }
            Self::Hidden(value) => write!(f, "hidden: {value:?} is unknown; allowed: include, exclude"),
        }
    }
}

impl Query {
    pub(super) fn parse(parameters: &Parameters<'_>) -> Result<Self, QueryError> {
        let value = |name| parameters.get(name).map(|value| &**value);
        let filter = match value("filter") {
            None => None,
            Some(text) => Some(Regex::new(text).map_err(|error| QueryError::Filter(error.to_string()))?),
        };
        let hidden = match value("hidden") {
            None | Some("exclude") => false,
            Some("include") => true,
            Some(other) => return Err(QueryError::Hidden(other.to_owned())),
        };
        let format = match value("format") {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some("prometheus") => Format::Prometheus,
            Some(other) => return Err(QueryError::Format(other.to_owned())),
        };
        Ok(Self {
            filter,
            used_only: parameters.contains_key("usedonly"),
            hidden,
            format,
        })
    }

    pub(super) fn render(&self, sheet: &Sheet, prefix: &str) -> String {
        let wanted = self.wanted(sheet, prefix);
        wanted.map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    pub(super) fn lines(&self, sheet: &Sheet, prefix: &str) -> Lines {
        let wanted = self.wanted(sheet, prefix);
        Lines {
            stats: wanted.map(|(name, value)| Line { name, value }).collect(),
        }
    }

    fn wanted(&self, sheet: &Sheet, prefix: &str) -> impl Iterator<Item = (String, u64)> {
        let lines = sheet.lines(prefix, self.hidden).into_iter();
        lines.filter(|(name, value)| {
            let named = self.filter.as_ref().is_none_or(|filter| filter.is_match(name));
            named && !(self.used_only && *value == 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::parameters_with_plus;
    use eddy_core::identity::NodeId;
    use eddy_core::stats::Name;

    fn render(query: &str) -> Result<String, String> {
        let mut sheet = Sheet::default();
        sheet.add(Name::NodeTunnels(None, NodeId::parse("a").unwrap()), 1);
        sheet.add(Name::Opened, 0);
        sheet.add(Name::TotalNodes(eddy_core::identity::WorkerId(0)), 1);
        let query = Query::parse(&parameters_with_plus(query)).map_err(|e| e.to_string())?;
        Ok(query.render(&sheet, "p"))
    }

    #[test]
    fn lines_are_sorted_and_hidden_ones_stay_hidden() {
        assert_eq!(render("").unwrap(), "p.nodes.a: 1\nreverse_tunnel.opened: 0\n");
        assert_eq!(
            render("hidden=include").unwrap(),
            "p.nodes.a: 1\np.worker_0.total_nodes: 1\nreverse_tunnel.opened: 0\n"
        );
    }

    #[test]
    fn lines_can_be_chosen() {
        assert_eq!(render("usedonly").unwrap(), "p.nodes.a: 1\n");
        assert_eq!(
            render("filter=%5Ereverse.*opened$").unwrap(),
            "reverse_tunnel.opened: 0\n"
        );
        assert_eq!(
            render("filter=reverse.+opened").unwrap(),
            "reverse_tunnel.opened: 0\n"
        );
        assert_eq!(render("filter=zzz").unwrap(), "");
    }

    #[test]
    fn a_bad_parameter_says_what_is_allowed() {
        assert!(
            render("filter=(")
                .unwrap_err()
                .starts_with("filter: not a regular expression")
        );
        assert_eq!(
            render("hidden=yes").unwrap_err(),
            "hidden: \"yes\" is unknown; allowed: include, exclude"
        );
    }
}
