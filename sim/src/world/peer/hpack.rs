//! Header compression (RFC 7541) by hand: reads what Eddy sends, and writes literals that any peer understands.

use std::collections::VecDeque;

/// The size of the dynamic table that both sides may use without settings (RFC 9113, section 6.5.2).
const TABLE_BYTES: usize = 4096;
/// What an entry costs beside its texts (RFC 7541, section 4.1).
const ENTRY_BYTES: usize = 32;

/// The static table (RFC 7541, appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// The Huffman code of the characters that headers have (RFC 7541, appendix B), by length. Within a length the codes are
/// consecutive, and the first code of a length follows from the last one before.
const HUFFMAN: [(u32, &str); 9] = [
    (5, "012aceiost"),
    (6, " %-./3456789=A_bdfghlmnpru"),
    (7, ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, "&*,;XZ"),
    (10, "!\"()?"),
    (11, "'+|"),
    (12, "#>"),
    (13, "\0$@[]~"),
    (14, "^}"),
];

type Field = (String, String);

/// Reads header blocks of one connection, in their order.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// The newest entry first.
    table: VecDeque<Field>,
}

impl Decoder {
    /// The fields of a block; none if it is malformed, or uses what this decoder leaves out.
    pub(super) fn decode(&mut self, mut block: &[u8]) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        while let Some(&first) = block.first() {
            match first {
                // An indexed field.
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    fields.push(self.entry(index)?);
                }
                // A literal that is added to the table.
                0x40.. => {
                    let field = self.literal(&mut block, 6)?;
                    self.add(field.clone());
                    fields.push(field);
                }
                // A new size of the table: Eddy never asks for more.
                0x20.. => {
                    integer(&mut block, 5)?;
                }
                // A literal that is not added.
                _ => fields.push(self.literal(&mut block, 4)?),
            }
        }
        Some(fields)
    }

    fn literal(&self, block: &mut &[u8], prefix: u32) -> Option<Field> {
        let name = match integer(block, prefix)? {
            0 => text(block)?,
            index => self.entry(index)?.0,
        };
        Some((name, text(block)?))
    }

    fn entry(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        match STATIC.get(index) {
            Some((name, value)) => Some(((*name).to_owned(), (*value).to_owned())),
            None => self.table.get(index - STATIC.len()).cloned(),
        }
    }

    fn add(&mut self, field: Field) {
        self.table.push_front(field);
        let size = |field: &Field| field.0.len() + field.1.len() + ENTRY_BYTES;
        while self.table.iter().map(size).sum::<usize>() > TABLE_BYTES {
            self.table.pop_back();
        }
    }
}

/// An integer behind a prefix of so many bits (RFC 7541, section 5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Option<usize> {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(take(block)?) & most;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = take(block)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take(block: &mut &[u8]) -> Option<u8> {
    let (first, rest) = block.split_first()?;
    *block = rest;
    Some(*first)
}

/// A text (RFC 7541, section 5.2).
fn text(block: &mut &[u8]) -> Option<String> {
    let is_huffman = block.first()? & 0x80 != 0;
    let length = integer(block, 7)?;
    if block.len() < length {
        return None;
    }
    let (bytes, rest) = block.split_at(length);
    *block = rest;
    if is_huffman {
        huffman(bytes)
    } else {
        String::from_utf8(bytes.to_vec()).ok()
    }
}

fn huffman(bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    let (mut code, mut length) = (0_u32, 0);
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
    {
        code = code << 1 | u32::from(bit);
        length += 1;
        if let Some(found) = symbol(code, length) {
            text.push(found);
            (code, length) = (0, 0);
        }
        if length > 14 {
            return None;
        }
    }
    // The rest is padding: fewer than eight bits, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(text)
}

/// The character of a code, if the bits are one.
fn symbol(code: u32, length: u32) -> Option<char> {
    let (mut first, mut last_length) = (0, 0);
    for (of_length, symbols) in HUFFMAN {
        first <<= of_length - last_length;
        let count = u32::try_from(symbols.len()).ok()?;
        if of_length == length {
            let at = usize::try_from(code.checked_sub(first)?).ok()?;
            return symbols.as_bytes().get(at).map(|byte| char::from(*byte));
        }
        first += count;
        last_length = of_length;
    }
    None
}

/// A block of literals that neither side adds to its table (RFC 7541, section 6.2.2).
pub(super) fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            put_integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits.
fn put_integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128) as u8 | 128);
        value /= 128;
    }
    block.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> Field {
        (name.to_owned(), value.to_owned())
    }

    /// RFC 7541, section C.4: requests with Huffman coding over one connection.
    #[test]
    fn the_examples_of_the_standard_are_read() {
        let mut decoder = Decoder::default();
        let first = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4,
            0xff,
        ];
        let common = [
            field(":method", "GET"),
            field(":scheme", "http"),
            field(":path", "/"),
            field(":authority", "www.example.com"),
        ];
        assert_eq!(decoder.decode(&first).unwrap(), common);
        let second = [
            0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf,
        ];
        let mut with_cache = common.to_vec();
        with_cache.push(field("cache-control", "no-cache"));
        assert_eq!(decoder.decode(&second).unwrap(), with_cache);
        let third = [
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25,
            0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ];
        let last = decoder.decode(&third).unwrap();
        assert_eq!(last.last(), Some(&field("custom-key", "custom-value")));
        assert_eq!(last[1], field(":scheme", "https"));
    }

    #[test]
    fn what_is_written_is_read() {
        let long = "v".repeat(20_000);
        let fields = [(":status", "200"), ("x-long", &long), ("x-126", "")];
        let decoded = Decoder::default().decode(&encode(&fields)).unwrap();
        let expected: Vec<_> = fields.iter().map(|(n, v)| field(n, v)).collect();
        assert_eq!(decoded, expected);
    }

    #[test]
    fn malformed_blocks_are_refused() {
        for block in [&[0x80][..], &[0xff], &[0x00, 0x05, b'a'], &[0xc5]] {
            assert_eq!(Decoder::default().decode(block), None, "{block:?}");
        }
    }
}
