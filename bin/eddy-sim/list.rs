//! `eddy-sim list`.

use std::path::{Path, PathBuf};

use eddy_sim::scenario::Scenario;

use crate::End;

/// The scenario files of a folder, by name.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn list(folder: &Path) -> End {
    let found = match files(folder) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("{}: cannot be read: {error}", folder.display());
            return End::WrongInput;
        }
    };
    let mut end = End::Well;
    for path in found {
        match Scenario::load(&path) {
            Ok(scenario) => println!(
                "{:<44} {:>4}s  {:>3} processes  {}",
                path.display().to_string(),
                scenario.duration.as_secs(),
                scenario.processes.len(),
                scenario.title
            ),
            Err(error) => {
                eprintln!("{error}");
                end = End::WrongInput;
            }
        }
    }
    end
}
