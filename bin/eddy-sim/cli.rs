//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Plays Eddy's shipping code on a simulated network.
#[derive(Debug, Parser)]
#[command(name = "eddy-sim", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Plays scenarios; prints the timeline of one, and the verdicts of each.
    Run(Run),
    /// Plays many seeds of scenarios and stops at the first that fails.
    Explore(Explore),
    /// Lists the scenarios of a folder.
    List {
        /// The folder.
        #[arg(default_value = "scenarios")]
        folder: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The files.
    #[arg(required = true)]
    pub(crate) scenarios: Vec<PathBuf>,
    /// Another seed than the scenario's own: instants, latencies and segments vary with it.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Writes every event as a line of JSON; with several scenarios, one after the other.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Writes one page that shows what happened.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Prints the timeline of each of several scenarios.
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Keeps what is seen as the snapshot beside each scenario.
    #[arg(long)]
    pub(crate) update_snapshots: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Explore {
    /// The files.
    #[arg(required = true)]
    pub(crate) scenarios: Vec<PathBuf>,
    /// How many seeds of each.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) start: u64,
    /// How many are played at once; by default one for each CPU.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
}
