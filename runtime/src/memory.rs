//! Follows the memory of the process on one worker.

use std::cell::Cell;

use eddy_core::memory::{Excess, MemoryBudget};
use eddy_core::policy::{MEMORY_INTERVAL, MEMORY_PART};

use crate::config::{ByteSize, MemoryConfig};
use crate::net::Network;

/// Whether the process has more memory than it may.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    excess: Cell<Option<Excess>>,
}

impl Memory {
    pub(crate) const fn is_exceeded(&self) -> bool {
        self.excess.get().is_some()
    }

    pub(crate) const fn excess(&self) -> Option<Excess> {
        self.excess.get()
    }

    /// Looks at the memory each [`MEMORY_INTERVAL`], without end, and calls `on_look` each time. Where the memory is unknown, it
    /// is never exceeded.
    pub(crate) async fn follow<N: Network>(&self, net: &N, config: &MemoryConfig, on_look: impl Fn()) {
        let limit = config.limit.or_else(|| {
            let (part, of) = MEMORY_PART;
            Some(ByteSize(net.memory_available()? / of * part))
        });
        let mut budget = limit.map(|limit| MemoryBudget::new(limit.0));
        loop {
            tokio::time::sleep(MEMORY_INTERVAL).await;
            if let Some((budget, resident)) = budget.as_mut().zip(net.memory_resident()) {
                let excess = budget.on_resident(resident);
                let before = self.excess.replace(excess);
                if before.is_some() != excess.is_some() {
                    let limit = limit.unwrap_or_default();
                    if excess.is_some() {
                        tracing::warn!(resident, %limit, "memory limit reached; new requests are refused");
                    } else {
                        tracing::info!(resident, %limit, "memory below its limit; requests are accepted again");
                    }
                }
            }
            on_look();
        }
    }
}
