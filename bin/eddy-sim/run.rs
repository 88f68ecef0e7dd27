//! `eddy-sim run`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use eddy_sim::scenario::Scenario;
use eddy_sim::snapshot::{self, Kept};
use eddy_sim::world::{Played, play};

use crate::End;
use crate::cli::Run;
use crate::watchdog::guarded;

/// Reads all scenarios before the first is played.
pub(crate) fn load(paths: &[PathBuf]) -> Result<Vec<Scenario>, End> {
    let mut scenarios = Vec::new();
    let mut wrong = false;
    for path in paths {
        match Scenario::load(path) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => {
                eprintln!("{error}");
                wrong = true;
            }
        }
    }
    if wrong {
        Err(End::WrongInput)
    } else {
        Ok(scenarios)
    }
}

pub(crate) fn run(arguments: &Run) -> End {
    match try_run(arguments) {
        Ok(end) => end,
        Err(Unwritten(path, error)) => {
            eprintln!("{}: cannot be written: {error}", path.display());
            End::Failed
        }
    }
}

/// A file that cannot be written.
struct Unwritten(PathBuf, io::Error);

fn writing(path: &Path) -> impl FnOnce(io::Error) -> Unwritten {
    let path = path.to_owned();
    |error| Unwritten(path, error)
}

fn try_run(arguments: &Run) -> Result<End, Unwritten> {
    let scenarios = match load(&arguments.scenarios) {
        Ok(scenarios) => scenarios,
        Err(end) => return Ok(end),
    };
    if arguments.report.is_some() && scenarios.len() > 1 {
        eprintln!("--report: one page tells one scenario; give one file");
        return Ok(End::WrongInput);
    }
    let mut trace = match &arguments.trace {
        Some(path) => Some((path, BufWriter::new(File::create(path).map_err(writing(path))?))),
        None => None,
    };
    let mut failed = Vec::new();
    let alone = scenarios.len() == 1;
    for scenario in scenarios {
        let seed = arguments.seed.unwrap_or(scenario.seed);
        let name = scenario.path.display().to_string();
        let (scenario, played) = guarded(&name, move || {
            let played = play(&scenario, seed);
            (scenario, played)
        });
        if let Some((path, trace)) = &mut trace {
            for event in &played.events {
                serde_json::to_writer(&mut *trace, event)
                    .map_err(|error| Unwritten(path.to_path_buf(), error.into()))?;
                trace.write_all(b"\n").map_err(writing(path))?;
            }
        }
        if let Some(path) = &arguments.report {
            std::fs::write(path, eddy_sim::report::page(&scenario, &played)).map_err(writing(path))?;
        }
        if alone || arguments.timeline {
            tell_timeline(&played);
        }
        let kept = keep(arguments, &scenario, &played)?;
        tell(&scenario, &played, kept);
        let differs = matches!(kept, Some(Kept::Differs | Kept::Missing));
        if !played.is_well() || differs {
            failed.push(name);
        }
    }
    if let Some((path, mut trace)) = trace {
        trace.flush().map_err(writing(path))?;
    }
    if failed.is_empty() {
        return Ok(End::Well);
    }
    println!("failed: {}", failed.join(" "));
    Ok(End::Failed)
}

/// Compares with the snapshot, or makes it; another seed has none.
fn keep(arguments: &Run, scenario: &Scenario, played: &Played) -> Result<Option<Kept>, Unwritten> {
    if played.seed != scenario.seed || played.failure.is_some() {
        return Ok(None);
    }
    let (path, text) = (snapshot::path(scenario), snapshot::text(scenario, played));
    if arguments.update_snapshots {
        snapshot::write(&path, &text).map_err(writing(&path))?;
    }
    snapshot::compare(&path, &text).map(Some).map_err(writing(&path))
}

/// The story, with what repeats itself told once.
fn tell_timeline(played: &Played) {
    let mut text = String::new();
    let (mut said, mut more) = (String::new(), 0);
    for event in played.events.iter().filter(|event| event.is_story()) {
        let gist = event.gist();
        if gist == said {
            more += 1;
            continue;
        }
        close_repetition(&mut text, &mut more);
        let _ = writeln!(text, "{event}");
        said = gist;
    }
    close_repetition(&mut text, &mut more);
    println!("{text}");
}

fn close_repetition(text: &mut String, more: &mut u32) {
    if *more > 0 {
        let _ = writeln!(text, "{:>26} and {more} more like it", "…");
    }
    *more = 0;
}

fn tell(scenario: &Scenario, played: &Played, kept: Option<Kept>) {
    println!(
        "{} (seed {}): {}",
        scenario.path.display(),
        played.seed,
        scenario.title
    );
    for verdict in &played.verdicts {
        let mark = if verdict.holds { "ok  " } else { "FAIL" };
        println!("  {mark} {:<60} {}", verdict.text, verdict.seen);
    }
    match kept {
        None | Some(Kept::Same) => {}
        Some(Kept::Differs) => {
            println!("  FAIL the stats differ from the snapshot; --update-snapshots keeps the new ones")
        }
        Some(Kept::Missing) => println!("  FAIL there is no snapshot; --update-snapshots makes it"),
    }
    if let Some(failure) = &played.failure {
        println!(
            "  FAIL at {:.3}s under seed {}: {}",
            failure.at.as_secs_f64(),
            played.seed,
            failure.text
        );
        println!("  the last events:");
        for event in &failure.last {
            println!("    {event}");
        }
    }
}
