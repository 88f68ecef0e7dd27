//! Questions to all workers of a process.

use tokio::sync::{mpsc, oneshot};

/// Asks every worker at once, and waits for the answers of those that are there; in the order of the workers.
pub(crate) async fn ask_all<M, T>(
    workers: &[mpsc::UnboundedSender<M>],
    question: impl Fn(oneshot::Sender<T>) -> M,
) -> Vec<T> {
    let ask = |worker: &mpsc::UnboundedSender<M>| {
        let (answer, answered) = oneshot::channel();
        // A worker that is gone answers nothing.
        let _ = worker.send(question(answer));
        answered
    };
    let asked: Vec<_> = workers.iter().map(ask).collect();
    let mut answers = Vec::with_capacity(asked.len());
    for answered in asked {
        answers.extend(answered.await.ok());
    }
    answers
}
