//! The notation of durations: an integer and a unit.

use std::fmt;
use std::time::Duration;

/// The units, the largest first, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses an integer and a unit: `250ms`, `2s`, `1m`, `1h`.
///
/// # Errors
///
/// The text has another form, or the duration overflows.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit);
    let ms = unit.and_then(|(_, ms)| number.parse::<u64>().ok()?.checked_mul(*ms));
    ms.map(Duration::from_millis).ok_or_else(|| {
        format!("invalid duration {text:?}: expected an integer and a unit, such as 250ms, 2s, 1m or 1h")
    })
}

/// A duration in the notation of the configuration, in the largest unit that divides it.
#[derive(Clone, Copy, Debug)]
pub struct Text(pub Duration);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let divides = |(_, unit): &&(&str, u64)| ms.is_multiple_of(u128::from(*unit));
        match UNITS.iter().find(divides) {
            Some((name, unit)) if ms > 0 => write!(f, "{}{name}", ms / u128::from(*unit)),
            Some(_) | None => f.write_str("0s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_written_back_in_the_largest() {
        for (text, ms, back) in [
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("250ms", 250, "250ms"),
            ("1500ms", 1500, "1500ms"),
            ("2000ms", 2000, "2s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("60m", 3_600_000, "1h"),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(Text(Duration::from_millis(ms)).to_string(), back);
        }
        for bad in [
            "",
            "s",
            "2",
            "2 s",
            "-2s",
            "1.5s",
            "2S",
            "2sec",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
