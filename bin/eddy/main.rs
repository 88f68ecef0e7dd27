//! `eddy`: reverse tunnels for HTTP that speak Envoy's protocol.

mod access_log;
mod cli;
mod failure;
mod listeners;
mod log_writer;
mod logging;
#[cfg(feature = "otlp")]
mod otlp;
mod process;
mod sandbox;
mod signals;
mod sinks;
mod writers;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use eddy_runtime::config::Config;
use eddy_runtime::responder::Start;

use cli::{Cli, Command};
use failure::Failure;
use log_writer::LogWriter;
use logging::Wish;

/// Gives memory back to the system after a storm, which glibc's allocator does not (docs/decisions/013).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// It ran and failed.
const FAILED: u8 = 1;
/// The arguments or the configuration are wrong (clap's own code for the former).
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let stderr = match LogWriter::start(std::io::stderr()) {
        Ok(stderr) => stderr,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "eddy: cannot start a thread: {error}");
            return ExitCode::from(FAILED);
        }
    };
    log_writer::take_panics(&stderr);
    let log = Wish {
        filter: cli.log,
        format: cli.log_format,
        writer: stderr.clone(),
    };
    let ran = match cli.command {
        Command::Responder { config, take_over } => match Config::load(&config) {
            Ok(Config::Responder(config)) => process::responder(config, start(take_over), log),
            Ok(Config::Initiator(_)) => Err(Failure::Role {
                file: config,
                is: "initiator",
                wanted: "responder",
            }),
            Err(error) => Err(error.into()),
        },
        Command::Initiator { config, take_over } => match Config::load(&config) {
            Ok(Config::Initiator(config)) => process::initiator(config, start(take_over), log),
            Ok(Config::Responder(_)) => Err(Failure::Role {
                file: config,
                is: "responder",
                wanted: "initiator",
            }),
            Err(error) => Err(error.into()),
        },
        Command::Sandbox { workers, port_offset } => sandbox::run(workers, port_offset, log),
        Command::Hello { listen } => process::hello(listen, log),
        Command::Check { config } => Config::load(&config).map_err(Failure::from).and_then(|config| {
            let traces = match &config {
                Config::Responder(config) => &config.traces,
                Config::Initiator(config) => &config.traces,
            };
            writers::can_send(traces.as_ref())?;
            if let Config::Initiator(config) = &config {
                for warning in &config.warnings.lines {
                    stderr.put(format!("eddy: warning: {warning}\n").as_bytes());
                }
            }
            let text = config.effective();
            std::io::stdout()
                .lock()
                .write_all(text.as_bytes())
                .map_err(Failure::Output)
        }),
    };
    let code = match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            stderr.put(format!("eddy: {failure}\n").as_bytes());
            ExitCode::from(if failure.is_wrong_input() { WRONG } else { FAILED })
        }
    };
    stderr.flush();
    code
}

const fn start(take_over: bool) -> Start {
    if take_over { Start::TakeOver } else { Start::Fresh }
}
