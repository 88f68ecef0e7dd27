//! How an initiator begins, and the hand that the process has on its workers.

use std::sync::Arc;

use eddy_core::identity::{ClusterName, WorkerId};
use eddy_core::rng::Rng;
use eddy_core::selection::Selection;
use tokio::sync::mpsc;

use super::Message;
use crate::clock::Clock;
use crate::config::InitiatorConfig;
use crate::mailbox::ask_all;
use crate::overview::{Overview, Wanted};
use crate::record::RecordQueues;
use crate::report::{Ask, Report};

/// All that one worker starts with.
pub struct Seed {
    /// Which one it is.
    pub worker: WorkerId,
    pub(super) mailbox: mpsc::UnboundedReceiver<Message>,
    pub(super) workers: Vec<mpsc::UnboundedSender<Message>>,
    /// Worker 0 resolves; everyone asks it to look again after a failed dial.
    pub(super) stale: mpsc::UnboundedSender<ClusterName>,
    pub(super) resolver: Option<mpsc::UnboundedReceiver<ClusterName>>,
    pub(super) config: Arc<InitiatorConfig>,
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) nonce: u64,
    /// Where it tells of requests, if it is to.
    pub records: RecordQueues,
}

/// The hand that the rest of the process has on its workers.
pub struct Control {
    /// What they run with.
    pub config: Arc<InitiatorConfig>,
    workers: Vec<mpsc::UnboundedSender<Message>>,
}

impl Control {
    /// Tells every worker to finish.
    pub fn drain(&self) {
        for worker in &self.workers {
            // A worker that is gone has finished.
            let _ = worker.send(Message::Drain);
        }
    }

    /// Replaces the tunnels that are meant; says how many those are.
    pub async fn renew(&self, selection: &Selection) -> usize {
        let renewed = ask_all(&self.workers, |answer| Message::Renew(selection.clone(), answer));
        renewed.await.into_iter().sum()
    }

    /// What the status page shows of every worker.
    pub async fn overviews(&self, wanted: &Arc<Wanted>) -> Vec<Overview> {
        ask_all(&self.workers, |answer| {
            Message::Overview(Arc::clone(wanted), answer)
        })
        .await
    }

    /// Asks every worker for what it tells of itself.
    pub async fn reports(&self, ask: &Ask) -> Vec<Report> {
        ask_all(&self.workers, |answer| Message::Report(ask.clone(), answer)).await
    }
}

/// Makes what each worker starts with.
pub fn prepare(config: Arc<InitiatorConfig>, clock: Clock, seed: u64) -> (Control, Vec<Seed>) {
    let (workers, mailboxes): (Vec<_>, Vec<_>) =
        (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
    let (stale, resolver) = mpsc::unbounded_channel();
    let mut resolver = Some(resolver);
    let mut rng = Rng::from_seed(seed);
    let nonce = rng.next_u64();
    let seeds = (0..).map(WorkerId).zip(mailboxes).map(|(worker, mailbox)| Seed {
        worker,
        mailbox,
        workers: workers.clone(),
        stale: stale.clone(),
        resolver: resolver.take(),
        config: Arc::clone(&config),
        clock,
        rng: rng.fork(),
        nonce,
        records: RecordQueues::default(),
    });
    let seeds = seeds.collect();
    (Control { config, workers }, seeds)
}
