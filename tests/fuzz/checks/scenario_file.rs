//! Any text is a scenario with processes and expectations, or is refused in one line that names the file.

use std::path::Path;

use eddy_sim::scenario::Scenario;

use super::one_line;

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Scenario::parse(Path::new("x.yaml"), text) {
        Ok(scenario) => assert!(!scenario.processes.is_empty() && !scenario.expect.is_empty()),
        Err(error) => {
            let said = error.to_string();
            assert!(said.starts_with("x.yaml"), "{said:?}");
            one_line(&said);
        }
    }
}
