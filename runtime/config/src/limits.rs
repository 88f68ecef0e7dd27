//! The keys with a number or a duration: the default of each and its bounds, all from [`policy`].

use std::fmt::{self, Display};
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::time::Duration;

use eddy_core::policy;
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

use super::duration::{self, Text};
use super::text;

/// One module for each key, for `#[serde(with = …, default = …)]`.
macro_rules! limits {
    ($($name:ident: $kind:ty = $default:expr, $range:expr;)*) => {$(
        pub(crate) mod $name {
            use super::*;

            pub(crate) fn default() -> $kind {
                $default
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$kind, D::Error> {
                Limited::read(deserializer, $range)
            }

            pub(crate) fn serialize<S: Serializer>(value: &$kind, serializer: S) -> Result<S::Ok, S::Error> {
                value.write(serializer)
            }
        }
    )*};
}

const ANY: RangeInclusive<u32> = 0..=u32::MAX;
const POSITIVE: RangeInclusive<u32> = 1..=u32::MAX;
const LONG: RangeInclusive<Duration> = policy::DURATION_MIN..=policy::DURATION_MAX;
/// Zero means without a limit, or not at all.
const LONG_OR_ZERO: RangeInclusive<Duration> = Duration::ZERO..=policy::DURATION_MAX;
const EXCHANGE: RangeInclusive<Duration> = policy::DURATION_MIN..=policy::EXCHANGE_MAX;
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=policy::GRACE_MAX;

limits! {
    workers: u16 = cpus(), 1..=u16::try_from(policy::WORKERS_MAX).unwrap_or(u16::MAX);
    max_series: u32 = policy::MAX_SERIES, ANY;
    drain_timeout: Duration = policy::DRAIN_TIMEOUT, LONG_OR_ZERO;
    http2_ping_interval: Duration = policy::HTTP2_PING_INTERVAL, EXCHANGE;
    http2_ping_timeout: Duration = policy::HTTP2_PING_TIMEOUT, EXCHANGE;
    max_streams: u32 = policy::MAX_STREAMS, POSITIVE;
    body_idle_timeout: Duration = policy::BODY_IDLE_TIMEOUT, LONG_OR_ZERO;

    ping_interval: Duration = policy::PING_INTERVAL, policy::PING_INTERVAL_MIN..=policy::EXCHANGE_MAX;
    ping_misses: u32 = policy::PING_MISSES, POSITIVE;
    handshake_timeout: Duration = policy::HANDSHAKE_TIMEOUT, EXCHANGE;
    first_byte_timeout: Duration = policy::FIRST_BYTE_TIMEOUT, LONG_OR_ZERO;
    settle: Duration = policy::SETTLE, Duration::ZERO..=policy::SETTLE_MAX;
    max_pending_handshakes: u32 = policy::MAX_PENDING_HANDSHAKES, POSITIVE;
    max_pending_per_source: u32 = policy::max_pending_per_source(policy::MAX_PENDING_HANDSHAKES), ANY;
    egress_timeout: Duration = policy::EGRESS_TIMEOUT, LONG_OR_ZERO;
    reconnect_grace: Duration = policy::RECONNECT_GRACE, GRACE;
    max_waiting: u32 = policy::MAX_WAITING, ANY;
    drain_delay: Duration = policy::DRAIN_DELAY, GRACE;

    service_timeout: Duration = policy::SERVICE_TIMEOUT, LONG_OR_ZERO;
    dial_timeout: Duration = policy::DIAL_TIMEOUT, EXCHANGE;
    max_in_flight: u32 = policy::MAX_DIALS, POSITIVE;
    first_retry: Duration = policy::FIRST_RETRY, LONG;
    refused_max: Duration = policy::REFUSED_MAX, LONG_OR_ZERO;
    silent_max: Duration = policy::SILENT_MAX, LONG_OR_ZERO;
    rejected_max: Duration = policy::REJECTED_MAX, LONG_OR_ZERO;
    overlap: Duration = policy::DIAL_OVERLAP, policy::DIAL_OVERLAP_MIN..=policy::DURATION_MAX;
    stable_after: Duration = policy::STABLE_AFTER, LONG_OR_ZERO;
    dns_refresh: Duration = policy::DNS_REFRESH, policy::DNS_REFRESH_MIN..=policy::DURATION_MAX;
    first_ping: Duration = policy::FIRST_PING, LONG;
    intervals: u32 = policy::SILENT_INTERVALS, POSITIVE;
    connect_timeout: Duration = policy::SERVICE_CONNECT_TIMEOUT, EXCHANGE;
    idle_timeout: Duration = policy::SERVICE_IDLE_TIMEOUT, LONG;
    max_idle: u32 = policy::SERVICE_MAX_IDLE, ANY;
}

/// One worker for each CPU.
fn cpus() -> u16 {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let most = u16::try_from(policy::WORKERS_MAX).unwrap_or(u16::MAX);
    u16::try_from(cpus).unwrap_or(most).min(most)
}

/// Checks a duration against bounds that depend on other keys.
///
/// # Errors
///
/// The problem names the bounds.
pub(crate) fn check(found: Duration, allowed: &RangeInclusive<Duration>) -> Result<(), String> {
    if allowed.contains(&found) {
        return Ok(());
    }
    let (start, end) = (Text(*allowed.start()), Text(*allowed.end()));
    Err(out_of_range(Text(found), format_args!("{start} to {end}")))
}

fn out_of_range(found: impl Display, allowed: impl Display) -> String {
    format!("{found} is out of range; allowed: {allowed}")
}

/// A value with bounds.
trait Limited: Sized {
    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        allowed: RangeInclusive<Self>,
    ) -> Result<Self, D::Error>;
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

impl Limited for Duration {
    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        allowed: RangeInclusive<Self>,
    ) -> Result<Self, D::Error> {
        let wanted = "a duration with its unit, such as 2s or 250ms";
        let found = text::read_as(deserializer, wanted, duration::parse)?;
        check(found, &allowed).map_err(Error::custom)?;
        Ok(found)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Text(*self))
    }
}

impl Limited for u32 {
    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        allowed: RangeInclusive<Self>,
    ) -> Result<Self, D::Error> {
        let found = deserializer.deserialize_u32(Whole)?;
        match Self::try_from(found) {
            Ok(number) if allowed.contains(&number) => Ok(number),
            Ok(_) | Err(_) if *allowed.end() == Self::MAX => Err(Error::custom(out_of_range(
                found,
                format_args!("{} or more", allowed.start()),
            ))),
            Ok(_) | Err(_) => Err(Error::custom(out_of_range(
                found,
                format_args!("{} to {}", allowed.start(), allowed.end()),
            ))),
        }
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(*self)
    }
}

impl Limited for u16 {
    fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
        allowed: RangeInclusive<Self>,
    ) -> Result<Self, D::Error> {
        let most = *allowed.end();
        let number = u32::read(deserializer, (*allowed.start()).into()..=most.into())?;
        Ok(Self::try_from(number).unwrap_or(most))
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(*self)
    }
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E>(self, number: i64) -> Result<i128, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<i128, E> {
        Ok(number.into())
    }
}
