//! Whatever stands in a scenario file: it is read, or refused in one line that names the file. Never a panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use eddy_core::rng::Rng;
use eddy_sim::scenario::Scenario;

const MUTATIONS: usize = 6_000;
/// What the format knows, thrown in at random.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "- ",
    "'",
    "\"",
    "\n",
    "0",
    "-1",
    "99999999999",
    "1s",
    "0s",
    "9999h",
    "0%",
    "101%",
    "hub",
    "edge",
    "services",
    "~",
    "true",
    "at",
    "every",
    "times",
    "within 1s of every heal",
    "count",
    "10000",
    "&a ",
    "*a",
    "\u{0}",
    "é",
    "64MiB",
    "1048576MiB",
    "1048577MiB",
    "0/s",
    "crash",
    "links",
    "names",
    "noise",
];

fn mutate(text: &str, rng: &mut Rng) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(chars.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 => {
                let end = (at + 1 + rng.below(12) as usize).min(chars.len());
                chars.drain(at..end);
            }
            1 | 2 => {
                let word = WORDS[rng.below(WORDS.len() as u64) as usize];
                chars.splice(at..at, word.chars());
            }
            _ => {
                // A line twice, or somewhere else.
                let lines: Vec<_> = text.lines().collect();
                let line = lines[rng.below(lines.len() as u64) as usize];
                chars.splice(at..at, format!("\n{line}\n").chars());
            }
        }
    }
    chars.into_iter().collect()
}

#[test]
fn any_text_is_a_scenario_or_is_refused_in_a_line_that_names_the_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
    texts.sort();
    let mut rng = Rng::from_seed(1);
    let (mut read, mut refused) = (0, 0);
    for round in 0..MUTATIONS {
        let text = mutate(&texts[round % texts.len()], &mut rng);
        match Scenario::parse(Path::new("x.yaml"), &text) {
            Ok(scenario) => {
                assert!(
                    !scenario.processes.is_empty() && !scenario.expect.is_empty(),
                    "{text}"
                );
                read += 1;
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.starts_with("x.yaml:"), "{said}\n{text}");
                assert_eq!(said.lines().count(), 1, "{said}\n{text}");
                refused += 1;
            }
        }
    }
    assert!(
        read > MUTATIONS / 20 && refused > MUTATIONS / 3,
        "{read} read, {refused} refused"
    );
}
