//! Rust source text, as far as the checks need it: without comments, literals and test code.

/// Replaces comments, strings and characters by spaces. Line breaks stay.
pub(crate) fn without_literals(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let is_in_word = code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let literal = if is_in_word && first != '"' && first != '\'' {
            0
        } else {
            literal_length(rest)
        };
        let (part, after) = rest.split_at(literal.max(first.len_utf8()));
        if literal == 0 {
            code += part;
        } else {
            code.extend(part.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// The length of the comment or literal at the beginning of a text; 0 if there is none.
fn literal_length(text: &str) -> usize {
    let until = |end: &str, from: usize| {
        text[from..]
            .find(end)
            .map_or(text.len(), |at| from + at + end.len())
    };
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until("*/", 2);
    }
    let prefix = ["br", "b", "cr", "c", "r", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(['"', '#', '\'']))
    });
    let Some(prefix) = prefix else { return 0 };
    let body = &text[prefix.len()..];
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    if prefix.ends_with('r') && body[hashes..].starts_with('"') {
        return until(&format!("\"{}", "#".repeat(hashes)), prefix.len() + hashes + 1);
    }
    if body.starts_with('"') {
        return prefix.len() + closed_by(body, '"');
    }
    // A lifetime has no closing quote behind its first character.
    let mut character = body.chars().skip(1);
    let is_character = match character.next() {
        Some('\\') => true,
        Some(_) => character.next() == Some('\''),
        None => false,
    };
    if body.starts_with('\'') && is_character {
        return prefix.len() + closed_by(body, '\'');
    }
    0
}

/// The length of a text in quotes, with both quotes.
fn closed_by(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Removes the items that are compiled for tests alone.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let (mut kept, mut rest) = (String::new(), code);
    while let Some(at) = rest.find(MARK) {
        kept += &rest[..at];
        let item = &rest[at + MARK.len()..];
        rest = &item[item_length(item)..];
    }
    kept + rest
}

/// The length of the first item of a text: up to its semicolon, or to the end of its block.
fn item_length(text: &str) -> usize {
    match text.find([';', '{']) {
        Some(at) if text[at..].starts_with('{') => at + block_length(&text[at..]),
        Some(at) => at + 1,
        None => text.len(),
    }
}

/// The length of a block, with both braces.
pub(crate) fn block_length(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    text.len()
}

#[test]
fn comments_and_literals_are_removed() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b */ c", "a         c"),
        ("f(\"use \\\" x\")", "f(          )"),
        ("f(r#\"a\"b\"#)", "f(        )"),
        ("for<'a> &'a str", "for<'a> &'a str"),
        ("['\"', b'\\'', 'x']", "[   ,      ,    ]"),
        ("bar(b\"x\")", "bar(    )"),
    ] {
        assert_eq!(without_literals(text), code, "{text}");
    }
}

#[test]
fn test_code_is_removed() {
    let code = "a #[cfg(test)] mod tests { fn x() { {} } } b #[cfg(test)]\nmod t; c";
    let kept = without_tests(code);
    assert_eq!(kept.split_whitespace().collect::<Vec<_>>(), ["a", "b", "c"]);
}
