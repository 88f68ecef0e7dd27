//! A short run of every fuzz target on stable: its corpus, and what a fixed seed makes of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod checks;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use eddy_core::rng::Rng;

/// Inputs per target, beside the corpus.
const MUTATIONS: u64 = 10_000;

/// Files to begin with, relative to the repository, and the words that the fuzzer is told too.
fn run(target: &str, more: &[&str], check: fn(&[u8])) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let corpus = format!("tests/fuzz/corpus/{target}");
    let folders = [corpus.as_str()].into_iter().chain(more.iter().copied());
    let mut inputs = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            inputs.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    inputs.sort();
    assert!(inputs.len() > 2, "{target} has a corpus");
    let dictionary = root.join(format!("tests/fuzz/dictionaries/{target}.dict"));
    let words = words(&fs::read_to_string(dictionary).unwrap());
    for (name, bytes) in &inputs {
        attempt(name, bytes, check);
    }
    let mut rng = Rng::from_seed(1);
    for round in 0..MUTATIONS {
        let (name, bytes) = &inputs[rng.below(inputs.len() as u64) as usize];
        let (_, other) = &inputs[rng.below(inputs.len() as u64) as usize];
        let mutant = mutate(bytes.clone(), other, &words, &mut rng);
        attempt(&format!("{name}, round {round}"), &mutant, check);
    }
}

fn attempt(name: &str, bytes: &[u8], check: fn(&[u8])) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(bytes)));
    assert!(outcome.is_ok(), "{name}: {:?}", String::from_utf8_lossy(bytes));
}

fn mutate(mut bytes: Vec<u8>, other: &[u8], words: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(5) {
            0 => {
                let end = (at + 1 + rng.below(12) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            1 | 2 => {
                let word = &words[rng.below(words.len() as u64) as usize];
                bytes.splice(at..at, word.iter().copied());
            }
            3 => {
                let from = rng.below(other.len() as u64 + 1) as usize;
                bytes.splice(at.., other[from..].iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
    bytes
}

/// The words of a libFuzzer dictionary: quoted, one per line, with `\xNN`, `\"` and `\\`.
fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let quoted = dictionary
        .lines()
        .filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    let words: Vec<_> = quoted.map(unescape).collect();
    assert!(!words.is_empty());
    words
}

fn unescape(mut quoted: &str) -> Vec<u8> {
    let mut word = Vec::new();
    while let Some(first) = quoted.chars().next() {
        if let Some(hex) = quoted.strip_prefix("\\x") {
            word.push(u8::from_str_radix(&hex[..2], 16).unwrap());
            quoted = &hex[2..];
            continue;
        }
        let literal = quoted.strip_prefix('\\').unwrap_or(quoted);
        let length = if first == '\\' { 1 } else { first.len_utf8() };
        word.extend(&literal.as_bytes()[..length]);
        quoted = &literal[length..];
    }
    word
}

#[test]
fn handshake_request() {
    run("handshake_request", &[], checks::handshake_request::check);
}

#[test]
fn handshake_response() {
    run("handshake_response", &[], checks::handshake_response::check);
}

#[test]
fn rping_stream() {
    run("rping_stream", &[], checks::rping_stream::check);
}

#[test]
fn rc_address() {
    run("rc_address", &[], checks::rc_address::check);
}

#[test]
fn config_file() {
    run("config_file", &["tests/configs"], checks::config_file::check);
}

#[test]
fn scenario_file() {
    run("scenario_file", &["scenarios"], checks::scenario_file::check);
}
