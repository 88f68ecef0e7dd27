//! The listeners of the admin and of the API, which a successor opens when its predecessor has ended.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use eddy_runtime::net::os::OsNetwork;
use eddy_runtime::net::{Network, Sharing};
use eddy_runtime::responder::{Start, StartError};

use crate::failure::Failure;

type Listener = <OsNetwork as Network>::Listener;

/// How often to look whether the predecessor has closed a listener.
const TAKE_OVER_LOOK: Duration = Duration::from_millis(50);

/// Opens a listener of this thread.
pub(crate) async fn listen(key: &'static str, addr: SocketAddr) -> Result<Listener, Failure> {
    Ok(open(key, addr).await?)
}

async fn open(key: &'static str, addr: SocketAddr) -> Result<Listener, StartError> {
    let failed = |source| StartError { key, addr, source };
    let (_, shares) = OsNetwork.bind(addr, 1, Sharing::Alone).await.map_err(failed)?;
    let share = shares
        .into_iter()
        .next()
        .ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
    OsNetwork.listen(share).map_err(failed)
}

/// A listener that is open, or is opened when the predecessor has ended.
pub(crate) enum Opening {
    Open(Listener),
    TakeOver { key: &'static str, addr: SocketAddr },
}

impl Opening {
    /// A fresh process opens the listener now. A successor never fails here, because its predecessor may be draining already.
    pub(crate) async fn start(key: &'static str, addr: SocketAddr, start: Start) -> Result<Self, Failure> {
        Ok(match start {
            Start::Fresh => Self::Open(listen(key, addr).await?),
            Start::TakeOver => Self::TakeOver { key, addr },
        })
    }

    /// Waits for the predecessor. Returns `None` if the address cannot be opened for another reason.
    async fn finish(self) -> Option<Listener> {
        let (key, addr) = match self {
            Self::Open(listener) => return Some(listener),
            Self::TakeOver { key, addr } => (key, addr),
        };
        let mut is_waiting = false;
        loop {
            match open(key, addr).await {
                Ok(listener) => return Some(listener),
                Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    tracing::error!(%error, "cannot open a listener");
                    return None;
                }
            }
            if !is_waiting {
                is_waiting = true;
                tracing::info!(key, %addr, "listening when the other process has ended");
            }
            tokio::time::sleep(TAKE_OVER_LOOK).await;
        }
    }
}

/// Runs a server on a listener as soon as that is open.
pub(crate) fn serve<F: Future<Output = ()>>(
    opening: Option<Opening>,
    server: impl FnOnce(Listener) -> F + 'static,
) {
    let Some(opening) = opening else { return };
    tokio::task::spawn_local(async move {
        if let Some(listener) = opening.finish().await {
            server(listener).await;
        }
    });
}
