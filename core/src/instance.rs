//! Which process a tunnel is from, and which of its tunnels it is: what two tunnels of one node id do not say of each other.
//!
//! An initiator of Eddy says so in a header of its own, which others overlook, and may leave out.

use std::fmt;

use crate::identity::WorkerId;

/// The header.
pub const HEADER: &str = "x-eddy-reverse-tunnel-instance";

/// The place that an initiator keeps filled with a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Berth {
    /// Of which worker.
    pub worker: WorkerId,
    /// Of which of its `rc://` addresses.
    pub lane: u32,
    /// Which one there: the tunnel that is dialed when another one is lost has the same.
    pub slot: u32,
}

/// A process, as long as it runs, and a place of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Drawn when the process began.
    pub nonce: u64,
    /// The place.
    pub berth: Berth,
}

impl Instance {
    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let nonce = parts.next().filter(|nonce| nonce.len() == 16)?;
        let instance = Self {
            nonce: u64::from_str_radix(nonce, 16).ok()?,
            berth: Berth {
                worker: WorkerId(parts.next()?.parse().ok()?),
                lane: parts.next()?.parse().ok()?,
                slot: parts.next()?.parse().ok()?,
            },
        };
        (instance.to_string() == text).then_some(instance)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nonce, berth } = self;
        write!(f, "{nonce:016x}.{}.{}.{}", berth.worker.0, berth.lane, berth.slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_instance_is_none() {
        let good = "00000000000000ff.0.1.2";
        assert!(Instance::parse(good).is_some());
        for bad in [
            "",
            "ff.0.1.2",
            "00000000000000FF.0.1.2",
            "+0000000000000ff.0.1.2",
            "00000000000000ff.0.1",
            "00000000000000ff.0.1.2.3",
            "00000000000000ff.0.+1.2",
            "00000000000000ff.65536.1.2",
            "00000000000000ff.0.1.02",
        ] {
            assert_eq!(Instance::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(nonce: u64, worker: u16, lane: u32, slot: u32) {
            let instance = Instance { nonce, berth: Berth { worker: WorkerId(worker), lane, slot } };
            prop_assert_eq!(Instance::parse(&instance.to_string()), Some(instance));
        }
    }
}
