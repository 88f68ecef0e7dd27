//! How a responder begins: its listeners, and the hand that the process has on its workers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::identity::{Identity, WorkerId};
use eddy_core::rng::Rng;
use eddy_core::selection::Selection;
use eddy_core::time::Instant;
use tokio::sync::mpsc;

use super::Message;
use super::explain::Choice;
use crate::clock::Clock;
use crate::config::ResponderConfig;
use crate::mailbox::ask_all;
use crate::net::{Network, Sharing};
use crate::overview::{Overview, Wanted};
use crate::record::RecordQueues;
use crate::report::{Ask, Asked, Report};

/// A listener that could not be opened.
#[derive(Debug)]
pub struct StartError {
    /// The key of the configuration that asks for it.
    pub key: &'static str,
    /// The address.
    pub addr: SocketAddr,
    /// What the operating system says.
    pub source: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot listen on {}: {}", self.key, self.addr, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// All that one worker starts with.
pub struct Seed<N: Network> {
    /// Which one it is.
    pub worker: WorkerId,
    pub(super) tunnels: N::Bound,
    pub(super) egress: N::Bound,
    pub(super) mailbox: mpsc::UnboundedReceiver<Message<N>>,
    pub(super) workers: Vec<mpsc::UnboundedSender<Message<N>>>,
    pub(super) config: Arc<ResponderConfig>,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    /// When the process had its addresses.
    pub(super) began: Instant,
    /// Where it tells of requests, if it is to.
    pub records: RecordQueues,
}

/// The hand that the rest of the process has on its workers.
pub struct Control<N: Network> {
    /// What they run with.
    pub config: Arc<ResponderConfig>,
    /// The address for tunnels, where the port asked for was 0.
    pub tunnels: SocketAddr,
    /// The address for clients.
    pub egress: SocketAddr,
    workers: Vec<mpsc::UnboundedSender<Message<N>>>,
}

impl<N: Network> Control<N> {
    /// Tells every worker to finish.
    pub fn drain(&self) {
        for worker in &self.workers {
            // A worker that is gone has finished.
            let _ = worker.send(Message::Drain);
        }
    }

    /// Tells initiators to go elsewhere, over the tunnels that are meant; says how many those are.
    pub async fn leave(&self, selection: &Selection) -> usize {
        let told = ask_all(&self.workers, |answer| {
            Message::SendAway(selection.clone(), answer)
        });
        told.await.into_iter().sum()
    }

    /// Asks every worker what it would do with a request for somebody.
    pub async fn explain(&self, asked: &Asked) -> Vec<Choice> {
        ask_all(&self.workers, |answer| Message::Explain(asked.clone(), answer)).await
    }

    /// What the status page shows of every worker.
    pub async fn overviews(&self, wanted: &Arc<Wanted>) -> Vec<Overview> {
        ask_all(&self.workers, |answer| {
            Message::Overview(Arc::clone(wanted), answer)
        })
        .await
    }

    /// How many requests are on the tunnels of each of these.
    pub async fn requests(&self, whose: &Arc<[Arc<Identity>]>) -> Vec<u64> {
        let mut sums = vec![0; whose.len()];
        let counts = ask_all(&self.workers, |answer| {
            Message::Requests(Arc::clone(whose), answer)
        });
        for counts in counts.await {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += u64::from(count);
            }
        }
        sums
    }

    /// Asks every worker for what it tells of itself.
    pub async fn reports(&self, ask: &Ask) -> Vec<Report> {
        ask_all(&self.workers, |answer| Message::Report(ask.clone(), answer)).await
    }
}

/// What a process does about one that has its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It fails.
    Fresh,
    /// It waits until that one drains, which closes the address for tunnels first; then both accept clients, until that
    /// one has ended. Where there is none it starts at once.
    TakeOver,
}

/// How often to look whether a predecessor has closed its address for tunnels: initiators that are refused meanwhile come
/// back after 10 to 50 ms.
const TAKE_OVER_LOOK: Duration = Duration::from_millis(5);

/// Opens the listeners and makes what each worker starts with.
///
/// # Errors
///
/// [`StartError`] names the listener that could not be opened.
pub async fn prepare<N: Network>(
    net: &N,
    config: Arc<ResponderConfig>,
    clock: Clock,
    seed: u64,
    start: Start,
) -> Result<(Control<N>, Vec<Seed<N>>), StartError> {
    let bind = async |key, addr, sharing| {
        net.bind(addr, config.workers, sharing)
            .await
            .map_err(|source| StartError { key, addr, source })
    };
    let (tunnels, tunnel_shares) = loop {
        match bind("tunnels.listen", config.tunnels.listen, Sharing::Alone).await {
            Err(error) if start == Start::TakeOver && error.source.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(TAKE_OVER_LOOK).await;
            }
            bound => break bound?,
        }
    };
    let sharing = match start {
        Start::Fresh => Sharing::Alone,
        Start::TakeOver => Sharing::WithPredecessor,
    };
    let (egress, egress_shares) = bind("egress.listen", config.egress.listen, sharing).await?;
    let began = clock.now();
    let (workers, mailboxes): (Vec<_>, Vec<_>) =
        (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
    let mut rng = Rng::from_seed(seed);
    let shares = tunnel_shares.into_iter().zip(egress_shares).zip(mailboxes);
    let seeds = (0..)
        .map(WorkerId)
        .zip(shares)
        .map(|(worker, ((tunnels, egress), mailbox))| Seed {
            worker,
            tunnels,
            egress,
            mailbox,
            workers: workers.clone(),
            config: Arc::clone(&config),
            clock,
            rng: rng.fork(),
            began,
            records: RecordQueues::default(),
        })
        .collect();
    Ok((
        Control {
            config,
            tunnels,
            egress,
            workers,
        },
        seeds,
    ))
}
