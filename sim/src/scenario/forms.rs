//! The forms of the texts in a scenario. Each function is one form.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::document::{Fault, Problem, Section, duration};

fn form<T>(found: &str, rule: &'static str) -> Result<T, Problem> {
    Err(Problem::Form {
        found: found.to_owned(),
        rule,
    })
}

/// The keys of a host that are not for its role are refused.
pub(super) fn refuse_keys(
    host: &Section<'_>,
    keys: &[&'static str],
    name: &str,
    rule: &'static str,
) -> Result<(), Fault> {
    match keys.iter().find_map(|key| host.find(key)) {
        None => Ok(()),
        Some(wrong) => Err(wrong.fault(Problem::Form {
            found: name.to_owned(),
            rule,
        })),
    }
}

/// Any text with something in it.
pub(super) fn words(text: &str) -> Result<String, Problem> {
    if text.trim().is_empty() {
        return form(text, "is empty");
    }
    Ok(text.trim().to_owned())
}

/// The name of a host: it is also its DNS name.
pub(super) fn host_name(text: &str) -> Result<String, Problem> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    if text.is_empty() || !text.bytes().all(allowed) {
        return form(text, "is no name; it needs one or more of a-z, 0-9, - and .");
    }
    Ok(text.to_owned())
}

/// `5ms` or `5ms..40ms`.
pub(super) fn latency(text: &str) -> Result<RangeInclusive<Duration>, Problem> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    match (duration(low), duration(high)) {
        (Ok(low), Ok(high)) if low <= high && high <= Duration::from_secs(10) => Ok(low..=high),
        _ => form(text, "is no latency; write 5ms or 5ms..40ms, at most 10s"),
    }
}

/// `2%`, `0.5%`, as a part of 1.
pub(super) fn share(text: &str) -> Result<f64, Problem> {
    let number = text
        .strip_suffix('%')
        .and_then(|number| number.parse::<f64>().ok());
    match number {
        Some(number) if (0.0..=100.0).contains(&number) => Ok(number / 100.0),
        _ => form(
            text,
            "is no share; write a number from 0 to 100 and %, such as 2%",
        ),
    }
}

/// `512B`, `4KB`, `1MB`, `64KiB`, `1MiB`.
pub(super) fn bytes(text: &str) -> Result<u64, Problem> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "B" => 1,
        "KB" => 1000,
        "KiB" => 1024,
        "MB" => 1_000_000,
        "MiB" => 1_048_576,
        _ => 0,
    };
    match number.parse::<u64>() {
        Ok(number) if factor > 0 && number <= 1 << 20 => Ok(number * factor),
        _ => form(text, "is no size; write a whole number and B, KB, KiB, MB or MiB"),
    }
}

/// A body's size, which is kept in memory.
pub(super) fn body(text: &str) -> Result<u64, Problem> {
    const MOST: u64 = 64 << 20;
    match bytes(text)? {
        size if size <= MOST => Ok(size),
        _ => Err(Problem::OutOfRange {
            found: text.to_owned(),
            allowed: "0B to 64MiB".to_owned(),
        }),
    }
}

/// `250KB/s`.
pub(super) fn bandwidth(text: &str) -> Result<u64, Problem> {
    match text.strip_suffix("/s").map(bytes) {
        Some(Ok(bytes)) if bytes > 0 => Ok(bytes),
        _ => form(text, "is no bandwidth; write a size and /s, such as 250KB/s"),
    }
}

/// `64KiB`, or `250ms` at the rate of the link, in bytes.
pub(super) fn queue(text: &str, bandwidth: u64) -> Result<u64, Problem> {
    const LONGEST: Duration = Duration::from_secs(60);
    match (bytes(text), duration(text)) {
        (Ok(bytes), _) => Ok(bytes),
        (_, Ok(time)) if time <= LONGEST => {
            Ok(bandwidth * u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 1000)
        }
        _ => form(
            text,
            "is not a valid queue: expected a size such as 64KiB, or a time of at most 60s such as 250ms",
        ),
    }
}

/// `20/s` or `30/m`: the pause from one to the next.
pub(super) fn rate(text: &str) -> Result<Duration, Problem> {
    let per = |unit| {
        text.strip_suffix(unit)
            .and_then(|number| number.parse::<u32>().ok())
    };
    match (per("/s"), per("/m")) {
        (Some(n @ 1..=100_000), _) => Ok(Duration::from_secs(1) / n),
        (_, Some(n @ 1..=100_000)) => Ok(Duration::from_secs(60) / n),
        _ => form(text, "is no rate; write 20/s or 30/m"),
    }
}

/// `GET`, `POST`, …
pub(super) fn method(text: &str) -> Result<&'static str, Problem> {
    match text {
        "GET" => Ok("GET"),
        "POST" => Ok("POST"),
        "PUT" => Ok("PUT"),
        _ => form(text, "is no method here; allowed: GET, POST, PUT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_reads_what_it_says_and_nothing_else() {
        let ms = Duration::from_millis;
        assert_eq!(latency("5ms").unwrap(), ms(5)..=ms(5));
        assert_eq!(latency("5ms..1s").unwrap(), ms(5)..=ms(1000));
        assert!(latency("1s..5ms").is_err() && latency("5").is_err() && latency("11s").is_err());
        assert_eq!(share("2.5%").unwrap(), 0.025);
        assert!(share("2").is_err() && share("101%").is_err() && share("NaN%").is_err());
        assert_eq!(bytes("64KiB").unwrap(), 65536);
        assert!(bytes("1").is_err() && bytes("1 MB").is_err() && bytes("99999999MB").is_err());
        assert_eq!(bandwidth("1MB/s").unwrap(), 1_000_000);
        assert!(bandwidth("0B/s").is_err());
        assert_eq!(queue("64KiB", 1).unwrap(), 65536);
        assert_eq!(queue("300ms", 250_000).unwrap(), 75_000);
        assert!(queue("61s", 1).is_err() && queue("5", 1).is_err());
        assert_eq!(rate("20/s").unwrap(), ms(50));
        assert_eq!(rate("30/m").unwrap(), ms(2000));
        assert!(rate("0/s").is_err());
    }
}
