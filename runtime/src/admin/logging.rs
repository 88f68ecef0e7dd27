//! `/logging`: what is logged, and how to change that while the process runs.

use std::cell::RefCell;
use std::fmt;

use hyper::{Method, StatusCode, Uri};

use super::{Admin, Answer, plain};
use crate::http::query::parameters;
use crate::net::Network;
use crate::record::Lost;

const FORM: &str =
    "ask for ?level=FILTER: error, warn, info, debug, trace, off, or MODULE=LEVEL, with commas between";

/// Sets a filter, or says what is wrong with it.
type Change = dyn Fn(&str) -> Result<(), String>;

/// What is logged, and the way to change it.
pub struct Logging {
    filter: RefCell<String>,
    lost: Lost,
    change: Box<Change>,
}

impl Logging {
    /// `filter` is in force; `lost` counts the lines that could not be written; `change` sets another filter, or returns
    /// what is wrong with it.
    pub fn new(filter: String, lost: Lost, change: impl Fn(&str) -> Result<(), String> + 'static) -> Self {
        Self {
            filter: RefCell::new(filter),
            lost,
            change: Box::new(change),
        }
    }

    /// The number of log lines that could not be written.
    pub(super) fn lines_lost(&self) -> u64 {
        self.lost.count()
    }

    fn set(&self, filter: String) -> Result<(), String> {
        (self.change)(&filter)?;
        *self.filter.borrow_mut() = filter;
        Ok(())
    }
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logging")
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

pub(super) fn answer<N: Network>(admin: &Admin<N>, method: &Method, uri: &Uri) -> Answer {
    let Some(logging) = &admin.logging else {
        return plain(StatusCode::NOT_FOUND, "this process has no log of its own\n");
    };
    if *method == Method::POST {
        let parameters = parameters(uri);
        let wrong = |why: String| plain(StatusCode::BAD_REQUEST, format!("{why}; {FORM}\n"));
        if let Some(unknown) = parameters.keys().find(|key| *key != "level") {
            return wrong(format!("{unknown}: no such parameter"));
        }
        let Some(level) = parameters.get("level").filter(|level| !level.is_empty()) else {
            return wrong("level: is missing".to_owned());
        };
        let filter = level.to_string();
        let before = logging.filter.borrow().clone();
        if let Err(why) = logging.set(filter.clone()) {
            return wrong(format!("level: {filter}: {why}"));
        }
        tracing::info!(filter, before, "log filter changed");
    }
    plain(StatusCode::OK, format!("{}\n", logging.filter.borrow()))
}
