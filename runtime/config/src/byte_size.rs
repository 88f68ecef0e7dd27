//! The notation of sizes in bytes: an integer and a unit.

use std::fmt;

/// The units, the largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes, written in the largest unit that divides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// Parses an integer and a unit: `64MiB`, `2GiB`; the size must be `min` or more.
pub(crate) fn at_least(min: u64) -> impl Fn(&str) -> Result<ByteSize, String> {
    move |text| {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        let bytes = unit.and_then(|(_, unit)| number.parse::<u64>().ok()?.checked_mul(*unit));
        let min = ByteSize(min);
        match bytes.map(ByteSize) {
            Some(size) if size >= min => Ok(size),
            Some(_) => Err(format!("{text} is too small: at least {min}")),
            None => Err(format!(
                "invalid size {text:?}: expected an integer and a unit, such as 64MiB or 2GiB"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_and_is_written_back_in_the_largest() {
        let parse = at_least(1024);
        for (text, bytes, back) in [
            ("1KiB", 1 << 10, "1KiB"),
            ("2048KiB", 2 << 20, "2MiB"),
            ("1536MiB", 1536 << 20, "1536MiB"),
            ("3GiB", 3 << 30, "3GiB"),
        ] {
            assert_eq!(parse(text), Ok(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), back);
        }
        for bad in [
            "",
            "64",
            "64 MiB",
            "64MB",
            "-1MiB",
            "1.5GiB",
            "0KiB",
            "99999999999999GiB",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
