//! Threads and signals: one thread per worker, and one for the admin and everything else.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use eddy_runtime::admin::{self, Admin, Logging, Role};
use eddy_runtime::clock::Clock;
use eddy_runtime::config::{Config, InitiatorConfig, ResponderConfig};
use eddy_runtime::hello::{self, Hello};
use eddy_runtime::net::Network;
use eddy_runtime::net::os::OsNetwork;
use eddy_runtime::responder::Start;
use eddy_runtime::{initiator as initiating, responder as responding};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::failure::{Failure, system};
use crate::listeners::{self, Opening, listen};
use crate::logging::Wish;
use crate::signals::{Reopen, Signals};
use crate::sinks::Sinks;
use crate::writers::Writers;

/// Runs a future on this thread, with tasks that stay on it.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(system("cannot start the runtime"))?;
    let done = LocalSet::new().block_on(&runtime, future);
    // A name that is being looked up must not keep the process.
    runtime.shutdown_background();
    Ok(done)
}

/// A random number for the seeds of jitter and ties.
pub(crate) fn seed() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| system("cannot draw a seed")(error.into()))
}

/// Threads that run workers, and news of their ends.
pub(crate) struct Threads {
    running: usize,
    ended: mpsc::UnboundedReceiver<Result<(), Failure>>,
    end: mpsc::UnboundedSender<Result<(), Failure>>,
    /// Those that write what the workers tell; each ends after them.
    writers: Writers,
}

impl Threads {
    /// No thread yet. `reopen` is the request to reopen log files.
    pub(crate) fn new(reopen: Reopen) -> Self {
        let (end, ended) = mpsc::unbounded_channel();
        Self {
            running: 0,
            ended,
            end,
            writers: Writers::new(reopen),
        }
    }

    /// Starts one thread per seed.
    pub(crate) fn start<S, F>(
        &mut self,
        role: &'static str,
        seeds: Vec<S>,
        run: impl Fn(S) -> F + Copy + Send + 'static,
    ) -> Result<(), Failure>
    where
        S: Send + 'static,
        F: Future<Output = io::Result<()>>,
    {
        for (number, seed) in seeds.into_iter().enumerate() {
            let end = self.end.clone();
            let body = move || {
                let ended = Ended(end);
                let ran = block_on(run(seed)).and_then(|ran| ran.map_err(system("a worker cannot start")));
                ended.with(ran);
            };
            std::thread::Builder::new()
                .name(format!("{role}_{number}"))
                .spawn(body)
                .map_err(system("cannot start a thread"))?;
            self.running += 1;
        }
        Ok(())
    }

    /// Waits until every thread has ended well, or one has not.
    pub(crate) async fn finished(&mut self) -> Result<(), Failure> {
        while self.running > 0 {
            let Some(ended) = self.ended.recv().await else {
                return Ok(());
            };
            self.running -= 1;
            ended?;
        }
        self.writers.finish().await;
        Ok(())
    }
}

/// Tells of the end of a thread, of a panic too.
struct Ended(mpsc::UnboundedSender<Result<(), Failure>>);

impl Ended {
    fn with(self, ran: Result<(), Failure>) {
        // Where nobody listens the process is at its end.
        let _ = self.0.send(ran);
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.send(Err(Failure::Worker("a worker panicked".into())));
        }
    }
}

/// Runs until the workers have ended: by a signal, after which they drain, or by a failure.
pub(crate) async fn supervise(
    threads: &mut Threads,
    signals: &mut Signals,
    drain: impl Fn(),
) -> Result<(), Failure> {
    tokio::select! {
        biased;
        ended = threads.finished() => return ended,
        () = signals.end() => {}
    }
    tracing::info!("draining; a second signal exits at once");
    drain();
    tokio::select! {
        biased;
        ended = threads.finished() => ended,
        () = signals.end() => Ok(()),
    }
}

/// Starts a responder's workers and its admin.
pub(crate) async fn start_responder(
    config: ResponderConfig,
    threads: &mut Threads,
    start: Start,
    logging: Rc<Logging>,
) -> Result<Rc<Admin<OsNetwork>>, Failure> {
    let text = Config::Responder(config.clone()).effective();
    let (clock, admin_at) = (Clock::start(), config.admin.clone());
    let records = threads.writers.start(&Sinks {
        role: "responder",
        node: &config.node,
        access_log: config.access_log.as_ref(),
        traces: config.traces.as_ref(),
    })?;
    let (control, mut seeds) =
        responding::prepare(&OsNetwork, Arc::new(config), clock, seed()?, start).await?;
    let admin_listener = match &admin_at {
        Some(admin) => Some(Opening::start("admin.listen", admin.listen, start).await?),
        None => None,
    };
    tracing::info!(tunnels = %control.tunnels, egress = %control.egress, workers = seeds.len(), "responder");
    for seed in &mut seeds {
        seed.records.clone_from(&records);
    }
    let losses = records.losses();
    drop(records);
    threads.start("responder", seeds, |seed| responding::run(OsNetwork, seed))?;
    let admin = Rc::new(Admin {
        logging: Some(logging),
        live: Rc::default(),
        losses,
        role: Role::Responder(control),
        clock,
        config: text,
        began: OsNetwork.wall(),
        draining: Cell::default(),
    });
    let served = Rc::clone(&admin);
    listeners::serve(admin_listener, |listener| admin::serve(listener, served));
    Ok(admin)
}

/// Starts an initiator's workers, its admin and its API.
pub(crate) async fn start_initiator(
    config: InitiatorConfig,
    threads: &mut Threads,
    start: Start,
    logging: Rc<Logging>,
) -> Result<Rc<Admin<OsNetwork>>, Failure> {
    let text = Config::Initiator(config.clone()).effective();
    for warning in &config.warnings.lines {
        tracing::warn!("{warning}");
    }
    let clock = Clock::start();
    let admin_listener = match &config.admin {
        Some(admin) => Some(Opening::start("admin.listen", admin.listen, start).await?),
        None => None,
    };
    let api_listener = match &config.api {
        Some(api) => Some(Opening::start("api.listen", api.listen, start).await?),
        None => None,
    };
    let records = threads.writers.start(&Sinks {
        role: "initiator",
        node: &config.node,
        access_log: config.access_log.as_ref(),
        traces: config.traces.as_ref(),
    })?;
    let (control, mut seeds) = initiating::prepare(Arc::new(config), clock, seed()?);
    tracing::info!(workers = seeds.len(), "initiator");
    for seed in &mut seeds {
        seed.records.clone_from(&records);
    }
    let losses = records.losses();
    drop(records);
    threads.start("initiator", seeds, |seed| initiating::run(OsNetwork, seed))?;
    let admin = Rc::new(Admin {
        logging: Some(logging),
        live: Rc::default(),
        losses,
        role: Role::Initiator(control),
        clock,
        config: text,
        began: OsNetwork.wall(),
        draining: Cell::default(),
    });
    let served = Rc::clone(&admin);
    listeners::serve(admin_listener, |listener| admin::serve(listener, served));
    let served = Rc::clone(&admin);
    listeners::serve(api_listener, |listener| admin::serve_api(listener, served));
    Ok(admin)
}

/// Starts a role, unless a signal ends the process first, and runs it until it has drained.
async fn run(
    start: impl AsyncFnOnce(&mut Threads) -> Result<Rc<Admin<OsNetwork>>, Failure>,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut threads = Threads::new(signals.reopen());
    let started = tokio::select! {
        biased;
        started = start(&mut threads) => started,
        () = signals.end() => return Ok(()),
    };
    let admin = started?;
    supervise(&mut threads, &mut signals, || admin.drain()).await
}

/// `eddy responder`.
pub(crate) fn responder(config: ResponderConfig, start: Start, log: Wish) -> Result<(), Failure> {
    let logging = Rc::new(log.start(Some(&config.log))?);
    block_on(run(async |threads| {
        start_responder(config, threads, start, logging).await
    }))?
}

/// `eddy initiator`.
pub(crate) fn initiator(config: InitiatorConfig, start: Start, log: Wish) -> Result<(), Failure> {
    let logging = Rc::new(log.start(Some(&config.log))?);
    block_on(run(async |threads| {
        start_initiator(config, threads, start, logging).await
    }))?
}

/// What `eddy hello` says of itself.
pub(crate) fn hello_of_this_machine() -> Result<Hello, Failure> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "localhost".into());
    Ok(Hello {
        server_name: name.trim().to_owned(),
        seed: seed()?,
    })
}

/// `eddy hello`.
pub(crate) fn hello(addr: SocketAddr, log: Wish) -> Result<(), Failure> {
    log.start(None)?;
    block_on(async {
        let listener = listen("--listen", addr).await?;
        tracing::info!(%addr, "hello");
        let mut signals = Signals::listen()?;
        tokio::select! {
            biased;
            () = signals.end() => Ok(()),
            () = hello::serve(OsNetwork, listener, hello_of_this_machine()?) => Ok(()),
        }
    })?
}
