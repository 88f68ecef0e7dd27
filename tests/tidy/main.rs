//! What clippy cannot say about the sources.

mod citations;
mod imports;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;

fn sources(under: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(under);
    let (mut folders, mut found) = (vec![root], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{under} has sources");
    found
}

fn everything() -> Vec<(PathBuf, String)> {
    ["core", "runtime", "sim", "bin", "tests"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

/// A simulation is replayed only if the order of polling is not drawn at random.
#[test]
fn every_select_is_biased() {
    let select = concat!("select", "! {");
    for (path, text) in everything() {
        for (at, _) in text.match_indices(select) {
            let body = text[at + select.len()..].trim_start();
            assert!(
                body.starts_with("biased;"),
                "{}: {select} without biased",
                path.display()
            );
        }
    }
}

#[test]
fn no_file_is_longer_than_a_reader_s_patience() {
    for (path, text) in everything() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

/// A fork of a copy does not advance the original, whose next fork draws the same numbers.
#[test]
fn no_copy_of_a_generator_is_forked() {
    let fork = concat!(".clone()", ".fork()");
    for (path, text) in everything() {
        let code: String = text.split_whitespace().collect();
        assert!(!code.contains(fork), "{} has a {fork}", path.display());
    }
}

/// Tasks that leave their worker would need locks; threads are the binary's.
#[test]
fn the_runtime_has_no_lock_of_its_own() {
    for (path, text) in sources("runtime/src").into_iter().chain(sources("core/src")) {
        for lock in ["Mutex<", "RwLock<", "Mutex::new", "RwLock::new"] {
            assert!(!text.contains(lock), "{} has a {lock}", path.display());
        }
    }
}

/// The numbers above 1 in a source, without those in comments, strings and unit tests.
fn numbers(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let outside: String = lines
        .flat_map(|line| line.split('"').step_by(2).chain(["\n"]))
        .collect();
    let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_number =
        |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && !["0", "1"].contains(word);
    words.filter(is_number).map(str::to_owned).collect()
}

/// `core/src/policy.rs` is the one home of each default and each bound.
#[test]
fn defaults_and_bounds_are_in_policy_alone() {
    for (path, text) in sources("runtime/config/src") {
        // Units.
        if !["duration.rs", "byte_size.rs"]
            .iter()
            .any(|file| path.ends_with(file))
        {
            assert_eq!(numbers(&text), Vec::<String>::new(), "{}", path.display());
        }
    }
    let mut policies = 0;
    for (path, text) in sources("core/src") {
        for (at, _) in text.match_indices("impl Default for ") {
            let body = &text[at..];
            let body = &body[..body.find("\n}\n").unwrap_or(body.len())];
            if body.contains("policy::") {
                policies += 1;
                assert_eq!(numbers(body), Vec::<String>::new(), "{}", path.display());
            }
            assert!(!body.contains("Duration::from"), "{}: {body}", path.display());
        }
    }
    assert_eq!(policies, 4, "the policies of backoff, dialer, pinger and echoer");
}

/// What `docs/compared-with-envoy.md` calls its evidence: tests by name, scenarios and tests by file.
#[test]
fn the_evidence_of_the_comparison_with_envoy_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/compared-with-envoy.md")).expect("the page");
    let sources: String = everything().into_iter().map(|(_, text)| text).collect();
    let (mut tests, mut files) = (0, 0);
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let evidence = row.rsplit(" | ").next().unwrap_or_default();
        for name in evidence.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                assert!(root.join(name).exists(), "there is no {name}");
                files += 1;
            } else {
                let heading = format!("fn {name}(");
                assert!(sources.contains(&heading), "there is no test {name}");
                tests += 1;
            }
        }
    }
    assert!(tests > 20 && files > 10, "{tests} tests and {files} files");
}
