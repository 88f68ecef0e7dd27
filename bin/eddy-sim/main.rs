//! `eddy-sim`: plays scenarios on a simulated network, explores their seeds, and tells what happened.
#![expect(clippy::print_stdout, reason = "a command's answers go to standard output")]

mod cli;
mod explore;
mod list;
mod run;
mod watchdog;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// What a command comes to, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All is well.
    Well,
    /// It ran, and something failed.
    Failed,
    /// The arguments or a scenario are wrong.
    WrongInput,
}

fn main() -> ExitCode {
    let end = match Cli::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Explore(arguments) => explore::explore(&arguments),
        Command::List { folder } => list::list(&folder),
    };
    ExitCode::from(match end {
        End::Well => 0,
        End::Failed => 1,
        End::WrongInput => 2,
    })
}
