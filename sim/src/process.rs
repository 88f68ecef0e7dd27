//! Starts a role on a simulated host as `bin` starts it on threads: all workers, and the admin.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use eddy_runtime::admin::{self, Admin, Role};
use eddy_runtime::clock::Clock;
use eddy_runtime::config::Config;
use eddy_runtime::hello::{self, Hello};
use eddy_runtime::net::Network;
use eddy_runtime::{initiator, responder};
use tokio::task::JoinHandle;

use crate::net::SimNetwork;

type Ran = Result<(), Box<dyn Error>>;

/// Runs what a configuration says until the simulation ends it; to be called inside the host's closure, so that a crash
/// takes everything with it.
///
/// # Errors
///
/// The configuration is wrong, or a port is taken.
pub async fn run(yaml: &str, seed: u64) -> Ran {
    let net = SimNetwork;
    let clock = Clock::start();
    let config = Config::parse("simulated host", yaml)?;
    let text = config.effective();
    let (role, admin_at, workers) = match config {
        Config::Responder(config) => {
            let admin_at = config.admin.as_ref().map(|admin| admin.listen);
            let (control, seeds) = responder::prepare(&net, Arc::new(config), clock, seed).await?;
            let workers: Vec<_> = seeds
                .into_iter()
                .map(|seed| tokio::task::spawn_local(responder::run(net, seed)))
                .collect();
            (Role::Responder(control), admin_at, workers)
        }
        Config::Initiator(config) => {
            let admin_at = config.admin.as_ref().map(|admin| admin.listen);
            let (control, seeds) = initiator::prepare(Arc::new(config), clock, seed);
            let workers: Vec<_> = seeds
                .into_iter()
                .map(|seed| tokio::task::spawn_local(initiator::run(net, seed)))
                .collect();
            (Role::Initiator(control), admin_at, workers)
        }
    };
    let admin = Rc::new(Admin {
        role,
        clock,
        config: text,
        draining: Cell::default(),
    });
    if let Some(addr) = admin_at {
        let listener = listen(addr).await?;
        tokio::task::spawn_local(admin::serve(listener, admin));
    }
    finish(workers).await
}

async fn finish(workers: Vec<JoinHandle<io::Result<()>>>) -> Ran {
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

async fn listen(addr: SocketAddr) -> io::Result<<SimNetwork as Network>::Listener> {
    let (_, shares) = SimNetwork.bind(addr, 1).await?;
    let share = shares.into_iter().next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    SimNetwork.listen(share)
}

/// Runs the plain-text service.
///
/// # Errors
///
/// The port is taken.
pub async fn service(port: u16, seed: u64) -> Ran {
    let listener = listen(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    hello::serve(
        SimNetwork,
        listener,
        Hello {
            server_name: "simulated".into(),
            seed,
        },
    )
    .await;
    Ok(())
}
