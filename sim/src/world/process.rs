//! One process of a scenario: started, killed, frozen and drained as an operating system would.
//!
//! It is a task set of its own inside a simulated host. To kill it is to drop the set: its sockets close as a
//! kernel closes them. To freeze it is not to poll it: its timers go on, as the clock does under SIGSTOP.

use std::cell::Cell;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use eddy_core::selection::Selection;
use eddy_runtime::admin::{self, Admin, Role};
use eddy_runtime::clock::Clock;
use eddy_runtime::config::Config;
use eddy_runtime::net::Network;
use eddy_runtime::report::Ask;
use eddy_runtime::responder::Start;

use eddy_runtime::{initiator, responder};
use tokio::task::{JoinHandle, LocalSet};

use super::peer;
use crate::claims::Claims;
use crate::fabric::{SimNetwork, now};
use crate::slot::{Life, Signal, Slot};

/// How often a process is asked for its numbers: the first for a few processes, the second for many.
const LOOKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
/// So many are a few.
const FEW: usize = 50;

/// How often each of `processes` is asked for its numbers.
pub(crate) const fn look_every(processes: usize) -> Duration {
    LOOKS[(processes > FEW) as usize]
}

type Ran = Result<(), Box<dyn Error>>;

/// The code that a process runs.
#[derive(Clone)]
pub(crate) enum Program {
    Eddy(Rc<Config>),
    Peer(Rc<peer::Program>),
}

/// The task on the simulated host that a process lives in.
pub(crate) struct Supervised {
    slot: Rc<Slot>,
    program: Program,
    net: SimNetwork,
    body: Option<Pin<Box<dyn Future<Output = Ran>>>>,
}

impl Supervised {
    pub(crate) const fn new(slot: Rc<Slot>, program: Program, net: SimNetwork) -> Self {
        Self {
            slot,
            program,
            net,
            body: None,
        }
    }

    fn obey(&mut self, signal: Signal) {
        let slot = Rc::clone(&self.slot);
        match signal {
            Signal::Start if self.body.is_none() => {
                slot.incarnation.set(slot.incarnation.get() + 1);
                slot.began.set(now());
                slot.life.set(Life::Running);
                slot.frozen.set(false);
                slot.note("running");
                let (program, net, owner) = (self.program.clone(), self.net.clone(), Rc::clone(&slot));
                self.body = Some(Box::pin(async move {
                    let local = LocalSet::new();
                    local.run_until(run(owner, program, net)).await
                }));
            }
            Signal::Kill if self.body.is_some() => {
                self.end(Life::Stopped);
                slot.note("stopped");
            }
            Signal::Terminate if self.body.is_some() && matches!(self.program, Program::Peer(_)) => {
                self.end(Life::Ended);
                slot.note("ended");
            }
            Signal::Terminate if self.body.is_some() => {
                slot.life.set(Life::Draining);
                slot.note("draining");
                if let Some(admin) = &*slot.admin.borrow() {
                    admin.drain();
                }
            }
            Signal::Renew if self.body.is_some() => slot.renewal.notify_one(),
            Signal::Stop if self.body.is_some() => {
                slot.frozen.set(true);
                slot.note("frozen");
            }
            Signal::Continue if slot.frozen.get() => {
                slot.frozen.set(false);
                slot.note("running");
            }
            Signal::Start
            | Signal::Kill
            | Signal::Terminate
            | Signal::Renew
            | Signal::Stop
            | Signal::Continue => {}
        }
    }

    fn end(&mut self, life: Life) {
        self.body = None;
        self.slot.admin.borrow_mut().take();
        self.slot.claims.borrow_mut().take();
        self.slot.frozen.set(false);
        self.slot.life.set(life);
    }

    /// The next signal that can be obeyed: a frozen process obeys SIGKILL and SIGCONT alone, the others wait.
    fn next_signal(&self) -> Option<Signal> {
        let mut signals = self.slot.signals.borrow_mut();
        let frozen = self.slot.frozen.get();
        let at = signals
            .iter()
            .position(|signal| !frozen || matches!(signal, Signal::Kill | Signal::Continue))?;
        Some(signals.remove(at))
    }
}

impl Future for Supervised {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        *this.slot.waker.borrow_mut() = Some(cx.waker().clone());
        this.slot.journal.set_current(&this.slot.name);
        while let Some(signal) = this.next_signal() {
            this.obey(signal);
        }
        if let Some(body) = this.body.as_mut().filter(|_| !this.slot.frozen.get())
            && let Poll::Ready(ran) = body.as_mut().poll(cx)
        {
            match ran {
                Ok(()) => {
                    this.end(Life::Ended);
                    this.slot.note("ended");
                }
                Err(error) => {
                    *this.slot.failure.borrow_mut() = Some(error.to_string());
                    this.end(Life::Failed);
                    this.slot.note("failed");
                }
            }
        }
        Poll::Pending
    }
}

async fn run(slot: Rc<Slot>, program: Program, net: SimNetwork) -> Ran {
    match program {
        Program::Eddy(config) => run_eddy(slot, net, &config).await,
        Program::Peer(program) => {
            peer::run(program, slot, net).await;
            Ok(())
        }
    }
}

/// Starts a role as `bin` starts it on threads: all workers, and the admin.
async fn run_eddy(slot: Rc<Slot>, net: SimNetwork, config: &Config) -> Ran {
    let clock = Clock::start();
    let seed = slot.seed.wrapping_add(u64::from(slot.incarnation.get()) << 32);
    let text = config.effective();
    let (role, admin_at, workers) = match config.clone() {
        Config::Responder(config) => {
            let admin_at = config.admin.as_ref().map(|admin| admin.listen);
            let (control, seeds) =
                responder::prepare(&net, Arc::new(config), clock, seed, Start::Fresh).await?;
            let run = |seed| tokio::task::spawn_local(responder::run(net.clone(), seed));
            let workers: Vec<_> = seeds.into_iter().map(run).collect();
            (Role::Responder(control), admin_at, workers)
        }
        Config::Initiator(config) => {
            let admin_at = config.admin.as_ref().map(|admin| admin.listen);
            let (control, seeds) = initiator::prepare(Arc::new(config), clock, seed);
            let run = |seed| tokio::task::spawn_local(initiator::run(net.clone(), seed));
            let workers: Vec<_> = seeds.into_iter().map(run).collect();
            (Role::Initiator(control), admin_at, workers)
        }
    };
    let admin = Rc::new(Admin {
        logging: None,
        live: Rc::default(),
        losses: Vec::new(),
        role,
        clock,
        config: text,
        began: net.wall(),
        draining: Cell::default(),
    });
    if let Some(addr) = admin_at {
        let listener = net.listen_at(addr.port()).await?;
        tokio::task::spawn_local(admin::serve(listener, Rc::clone(&admin)));
    }
    *slot.admin.borrow_mut() = Some(Rc::clone(&admin));
    if slot.life.get() == Life::Draining {
        admin.drain();
    }
    tokio::task::spawn_local(renew(Rc::clone(&slot), Rc::clone(&admin)));
    tokio::task::spawn_local(look(slot, admin));
    finish(workers).await
}

async fn finish(workers: Vec<JoinHandle<io::Result<()>>>) -> Ran {
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

/// Lets all tunnels go whenever somebody asks for that.
async fn renew<N: Network>(slot: Rc<Slot>, admin: Rc<Admin<N>>) {
    loop {
        slot.renewal.notified().await;
        match &admin.role {
            Role::Responder(control) => control.leave(&Selection::default()).await,
            Role::Initiator(control) => control.renew(&Selection::default()).await,
        };
    }
}

/// Asks the process for its numbers, again and again.
async fn look<N: Network>(slot: Rc<Slot>, admin: Rc<Admin<N>>) {
    loop {
        let reports = admin.reports(&Ask::Everything).await;
        *slot.claims.borrow_mut() = Some(Claims::of(&reports, admin.stats(&reports)));
        tokio::time::sleep(slot.look_every).await;
    }
}
