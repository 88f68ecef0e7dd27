//! `eddy-sim explore`: many seeds, on all CPUs, until one fails.

use std::io::IsTerminal;
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use eddy_sim::scenario::Scenario;
use eddy_sim::world::{Played, play};

use crate::End;
use crate::cli::Explore;
use crate::run::load;
use crate::watchdog::{LOOK, Spent};

/// The width of the progress bar, in characters.
const BAR: u64 = 40;

pub(crate) fn explore(arguments: &Explore) -> End {
    let scenarios = match load(&arguments.scenarios) {
        Ok(scenarios) => scenarios,
        Err(end) => return end,
    };
    let jobs = match arguments.jobs {
        Some(jobs) => usize::from(jobs),
        None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    for scenario in scenarios {
        if !explore_one(Arc::new(scenario), arguments, jobs) {
            return End::Failed;
        }
    }
    End::Well
}

/// What a job says.
enum News {
    Played { simulated: Duration },
    Failed(Box<Played>),
}

#[expect(
    clippy::disallowed_methods,
    reason = "each thread plays whole simulations; none shares one"
)]
fn explore_one(scenario: Arc<Scenario>, arguments: &Explore, jobs: usize) -> bool {
    let next = Arc::new(AtomicU64::new(arguments.start));
    let stop = Arc::new(AtomicBool::new(false));
    let end = arguments.start.saturating_add(arguments.seeds);
    let (tell, news) = mpsc::channel();
    for _ in 0..jobs {
        let (scenario, next, stop, tell) = (
            Arc::clone(&scenario),
            Arc::clone(&next),
            Arc::clone(&stop),
            tell.clone(),
        );
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end || stop.load(Ordering::Relaxed) {
                    return;
                }
                let played = play(&scenario, seed);
                let said = if played.is_well() {
                    News::Played {
                        simulated: played.elapsed,
                    }
                } else {
                    News::Failed(Box::new(played))
                };
                // Nobody listens after the first failure.
                let _ = tell.send(said);
            }
        });
    }
    drop(tell);
    let name = scenario.path.display().to_string();
    let (mut done, mut simulated) = (0, Duration::ZERO);
    let mut failed: Option<Box<Played>> = None;
    let mut spent = Spent::since_now();
    loop {
        let heard = news.recv_timeout(LOOK);
        if heard.is_ok() {
            spent = Spent::since_now();
        }
        match heard {
            Ok(News::Played { simulated: more }) => {
                done += 1;
                simulated += more;
                bar(&name, done, arguments.seeds);
            }
            Ok(News::Failed(played)) => {
                stop.store(true, Ordering::Relaxed);
                // The smallest of those that were under way, so that the same one is told every time.
                if failed.as_ref().is_none_or(|first| played.seed < first.seed) {
                    failed = Some(played);
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) if !spent.is_too_much() => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let seed = next.load(Ordering::Relaxed);
                eprintln!("{name}: time stands still under one of the {jobs} seeds before {seed}");
                exit(1);
            }
        }
    }
    clear();
    match failed {
        None => {
            println!(
                "{name}: {done} seeds are well, {} simulated seconds",
                simulated.as_secs()
            );
            true
        }
        Some(played) => {
            tell_failure(&scenario, &played);
            false
        }
    }
}

fn tell_failure(scenario: &Scenario, played: &Played) {
    println!(
        "{}: seed {} fails: {}",
        scenario.path.display(),
        played.seed,
        scenario.title
    );
    for verdict in played.verdicts.iter().filter(|verdict| !verdict.holds) {
        println!("  {}: {}", verdict.text, verdict.seen);
    }
    if let Some(failure) = &played.failure {
        println!("  at {:.3}s: {}", failure.at.as_secs_f64(), failure.text);
        for event in &failure.last {
            println!("    {event}");
        }
    }
    println!(
        "replay: eddy-sim run {} --seed {}",
        scenario.path.display(),
        played.seed
    );
}

fn bar(name: &str, done: u64, of: u64) {
    if std::io::stderr().is_terminal() {
        let full = usize::try_from(done * BAR / of.max(1)).unwrap_or(0);
        let rest = usize::try_from(BAR).unwrap_or(0).saturating_sub(full);
        eprint!("\r{name} [{}{}] {done}/{of}", "#".repeat(full), ".".repeat(rest));
    }
}

fn clear() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K");
    }
}
