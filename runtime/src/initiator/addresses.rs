//! The addresses of one service host, resolved at most once per lifetime of the DNS answer.
//!
//! Each worker has its own for each host. A name that cannot be resolved keeps its last known addresses.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use eddy_core::time::Instant;
use tokio::sync::Notify;

use super::names::{self, LOOK_PAUSE};
use crate::clock::Clock;
use crate::config::HostPort;
use crate::net::Resolved;

/// Resolves a name: `Network::resolve`.
pub(super) trait Resolve: AsyncFn(&str, u16) -> io::Result<Resolved> {}

impl<F: AsyncFn(&str, u16) -> io::Result<Resolved>> Resolve for F {}

/// The addresses of one host.
pub(super) struct Addresses {
    host: HostPort,
    /// An upper limit of how long an answer is used.
    refresh: Duration,
    cache: RefCell<Cache>,
    is_resolving: Cell<bool>,
    resolved: Notify,
}

/// The last answer, or the last error while there has been no answer.
#[derive(Debug)]
struct Cache {
    addresses: Vec<SocketAddr>,
    error: Option<(io::ErrorKind, String)>,
    /// When the name was last resolved, successfully or not.
    at: Option<Instant>,
    fresh_until: Instant,
}

impl Cache {
    const EMPTY: Self = Self {
        addresses: Vec::new(),
        error: None,
        at: None,
        fresh_until: Instant::ZERO,
    };

    fn is_fresh(&self, now: Instant) -> bool {
        self.at.is_some() && now < self.fresh_until
    }

    fn learn(&mut self, now: Instant, found: io::Result<Resolved>, refresh: Duration) {
        let fresh_for = match found {
            Ok(found) => {
                self.error = None;
                if found.is_whole {
                    self.addresses = found.addresses;
                } else {
                    names::replace_family(&mut self.addresses, found.addresses);
                }
                found.fresh_for.map_or(refresh, |fresh| fresh.min(refresh))
            }
            Err(error) => {
                self.error = Some((error.kind(), error.to_string()));
                Duration::ZERO
            }
        };
        self.at = Some(now);
        self.fresh_until = now + fresh_for.max(LOOK_PAUSE);
    }

    fn get(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.error {
            Some((kind, text)) if self.addresses.is_empty() => Err(io::Error::new(*kind, text.clone())),
            Some(_) | None => Ok(self.addresses.clone()),
        }
    }
}

impl Addresses {
    pub(super) fn new(host: HostPort, refresh: Duration) -> Self {
        Self {
            host,
            refresh,
            cache: RefCell::new(Cache::EMPTY),
            is_resolving: Cell::default(),
            resolved: Notify::new(),
        }
    }

    /// The addresses; resolves the name if the last answer has expired. While one caller resolves it, the others use the
    /// previous addresses, or wait for the first ones.
    ///
    /// # Errors
    ///
    /// The name has never been resolved, and cannot be resolved now.
    pub(super) async fn get(&self, clock: Clock, resolve: impl Resolve) -> io::Result<Vec<SocketAddr>> {
        if let Some(address) = names::literal(&self.host) {
            return Ok(vec![address]);
        }
        loop {
            {
                let cache = self.cache.borrow();
                let is_known = !cache.addresses.is_empty();
                if cache.is_fresh(clock.now()) || (self.is_resolving.get() && is_known) {
                    return cache.get();
                }
            }
            if self.is_resolving.get() {
                self.resolved.notified().await;
            } else {
                self.resolve(clock, &resolve).await;
            }
        }
    }

    /// Other addresses than `tried`, to none of which a connection could be opened: the host may have moved. Resolves the
    /// name again, unless that happened a moment ago.
    pub(super) async fn others(
        &self,
        clock: Clock,
        tried: &[SocketAddr],
        resolve: impl Resolve,
    ) -> Option<Vec<SocketAddr>> {
        if names::literal(&self.host).is_some() {
            return None;
        }
        let resolved_at = self.cache.borrow().at;
        let is_recent = resolved_at.is_some_and(|at| clock.now() < at + LOOK_PAUSE);
        if !is_recent && !self.is_resolving.get() {
            self.resolve(clock, &resolve).await;
        }
        let addresses = self.cache.borrow().addresses.clone();
        (addresses != tried).then_some(addresses)
    }

    async fn resolve(&self, clock: Clock, resolve: &impl Resolve) {
        let _resolving = Resolving::begin(self);
        let found = resolve(&self.host.host, self.host.port).await;
        let found = found.and_then(|found| match found.addresses[..] {
            [] => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            [..] => Ok(found),
        });
        if let Err(error) = &found {
            tracing::debug!(name = self.host.host, %error, "cannot resolve a service; keeping the previous addresses");
        }
        self.cache.borrow_mut().learn(clock.now(), found, self.refresh);
    }
}

/// Lasts while a caller resolves the name, which may give up at any time.
struct Resolving<'a>(&'a Addresses);

impl<'a> Resolving<'a> {
    fn begin(addresses: &'a Addresses) -> Self {
        addresses.is_resolving.set(true);
        Self(addresses)
    }
}

impl Drop for Resolving<'_> {
    fn drop(&mut self) {
        self.0.is_resolving.set(false);
        self.0.resolved.notify_waiters();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    fn found(last: u8, fresh_for: Option<u64>) -> io::Result<Resolved> {
        Ok(Resolved::new(
            vec![addr(last)],
            fresh_for.map(Duration::from_secs),
        ))
    }

    #[test]
    fn an_answer_expires_with_its_lifetime() {
        let mut cache = Cache::EMPTY;
        assert!(!cache.is_fresh(at(0)));
        for (fresh_for, expires) in [(Some(5), 5), (Some(300), 30), (None, 30), (Some(0), 1)] {
            cache.learn(at(100), found(1, fresh_for), REFRESH);
            assert!(cache.is_fresh(at(100 + expires - 1)), "{fresh_for:?}");
            assert!(!cache.is_fresh(at(100 + expires)), "{fresh_for:?}");
        }
    }

    #[test]
    fn an_error_keeps_the_previous_addresses() {
        let error = || Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
        let mut cache = Cache::EMPTY;
        cache.learn(at(0), error(), REFRESH);
        assert_eq!(cache.get().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(
            cache.is_fresh(at(0)) && !cache.is_fresh(at(1)),
            "resolved again soon"
        );
        cache.learn(at(1), found(1, None), REFRESH);
        cache.learn(at(31), error(), REFRESH);
        assert_eq!(cache.get().unwrap(), [addr(1)]);
        assert!(!cache.is_fresh(at(32)));
    }

    fn addresses() -> Addresses {
        let host = HostPort {
            host: "service".into(),
            port: 1,
        };
        Addresses::new(host, REFRESH)
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn connections_share_one_answer() {
        let (addresses, clock, asked) = (addresses(), Clock::start(), Cell::new(0));
        let resolve = async |_: &str, _: u16| {
            asked.set(asked.get() + 1);
            tokio::time::sleep(Duration::from_millis(100)).await;
            found(asked.get(), None)
        };
        let both = tokio::join!(addresses.get(clock, resolve), addresses.get(clock, resolve));
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (vec![addr(1)], vec![addr(1)]));
        assert_eq!(addresses.get(clock, resolve).await.unwrap(), [addr(1)]);
        assert_eq!(asked.get(), 1);

        tokio::time::sleep(REFRESH).await;
        let both = tokio::join!(addresses.get(clock, resolve), addresses.get(clock, resolve));
        assert_eq!(both.0.unwrap(), [addr(2)]);
        assert_eq!(both.1.unwrap(), [addr(1)], "does not wait for the new answer");
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_caller_that_gives_up_is_replaced() {
        let (addresses, clock) = (addresses(), Clock::start());
        let never = async |_: &str, _: u16| std::future::pending().await;
        let given_up = tokio::time::timeout(Duration::from_secs(1), addresses.get(clock, never));
        let resolve = async |_: &str, _: u16| found(1, None);
        let (given_up, found) = tokio::join!(given_up, addresses.get(clock, resolve));
        assert!(given_up.is_err());
        assert_eq!(found.unwrap(), [addr(1)]);
    }

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_host_that_moved_is_found_again() {
        let (addresses, clock, now_at) = (addresses(), Clock::start(), Cell::new(1));
        let resolve = async |_: &str, _: u16| found(now_at.get(), None);
        let tried = addresses.get(clock, resolve).await.unwrap();
        now_at.set(2);
        assert_eq!(
            addresses.others(clock, &tried, resolve).await,
            None,
            "a moment ago"
        );
        tokio::time::sleep(LOOK_PAUSE).await;
        assert_eq!(
            addresses.others(clock, &tried, resolve).await,
            Some(vec![addr(2)])
        );
        assert_eq!(addresses.get(clock, resolve).await.unwrap(), [addr(2)]);
    }
}
