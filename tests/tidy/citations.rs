//! Citations of `docs/wire.md` lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The page, as it is cited. Split, so that this file has no citation.
const PAGE: &str = concat!("wire", ".md");

/// The sections that a text cites, as in "wire.md 2.3" and "wire.md section 4".
fn cited(text: &str) -> Vec<String> {
    // A citation may continue on the next line of a comment.
    let words: Vec<&str> = text
        .split_whitespace()
        .filter(|word| !matches!(*word, "//" | "///" | "//!"))
        .collect();
    let text = words.join(" ");
    let behind = text.match_indices(PAGE).map(|(at, _)| &text[at + PAGE.len()..]);
    let sections = behind.map(|text| {
        // A link: [wire.md](wire.md), section 2.6
        let text = text.trim_start_matches([')', '`', ',']).trim_start();
        let text = text.strip_prefix("section ").unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        text[..end.unwrap_or(text.len())].trim_end_matches('.').to_owned()
    });
    sections.filter(|section| !section.is_empty()).collect()
}

/// The numbers of the headings.
fn headings(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with("##"));
    let numbers = headings.filter_map(|line| line.split_whitespace().nth(1));
    numbers
        .map(|number| number.trim_end_matches('.').to_owned())
        .collect()
}

fn pages(folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(folder).expect("a folder of the repository");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let pages = paths.filter(|path| path.extension().is_some_and(|ext| ext == "md"));
    pages
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a page");
            (path, text)
        })
        .collect()
}

#[test]
fn citations_of_the_protocol_resolve() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let headings = headings(&fs::read_to_string(docs.join(PAGE)).expect("the page"));
    let pages = [pages(&docs), pages(&docs.join("decisions"))].concat();
    let mut count = 0;
    for (path, text) in super::everything().into_iter().chain(pages) {
        for section in cited(&text) {
            count += 1;
            assert!(
                headings.contains(&section),
                "{}: there is no section {section} in docs/{PAGE}",
                path.display()
            );
        }
    }
    assert!(count > 25, "{count} citations");
}

#[test]
fn citations_are_read() {
    let text =
        "(PAGE 2.3: Envoy's limit) PAGE\n//! section 4). [PAGE](PAGE), section 2.6 PAGE's tables, PAGE 13.";
    let text = text.replace("PAGE", PAGE);
    assert_eq!(cited(&text), ["2.3", "4", "2.6", "13"]);
    let found = headings("# 1. No\n## 2. Handshake\n### 2.1 Request");
    assert_eq!(found, BTreeSet::from(["2".to_owned(), "2.1".to_owned()]));
}
