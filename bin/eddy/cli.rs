//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use eddy_runtime::config::LogFormat;

/// Reverse tunnels for HTTP. An initiator behind NAT dials out to a responder, and the responder sends HTTP
/// requests back over that connection. Speaks the wire protocol of Envoy's reverse tunnels.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Example: see a request travel through a tunnel on this machine\n  eddy sandbox"
)]
pub(crate) struct Cli {
    /// What to log: error, warn, info, debug or trace, also by module (`info,eddy_runtime=debug`)
    /// [default: `log.filter` of the configuration, or info]
    #[arg(long, global = true, env = "EDDY_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to write the log: text for people, or json, an object a line
    /// [default: `log.format` of the configuration, or text]
    #[arg(long, global = true, env = "EDDY_LOG_FORMAT", value_name = "FORMAT", value_parser = log_format)]
    pub(crate) log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Accept tunnels, and send the requests of clients into them
    #[command(after_help = "Example:\n  eddy responder -c docs/sandbox/responder.yaml")]
    Responder {
        /// The configuration (YAML)
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Take over from a process on the same addresses: wait until it drains (SIGTERM), then go on in its place;
        /// the admin address is opened when that process has ended
        #[arg(long)]
        take_over: bool,
    },
    /// Dial out to responders, and serve the requests that come back
    #[command(after_help = "Example:\n  eddy initiator -c docs/sandbox/initiator.yaml")]
    Initiator {
        /// The configuration (YAML)
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Take over from a process with the same admin and api addresses: dial at once, and open these addresses
        /// when that process has ended
        #[arg(long)]
        take_over: bool,
    },
    /// Run a service, a responder and an initiator in one process on 127.0.0.1
    #[command(
        after_help = "Example: two sandboxes side by side\n  eddy sandbox\n  eddy sandbox --port-offset 1000 --workers 4"
    )]
    Sandbox {
        /// Workers of the responder and of the initiator
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
        workers: u16,
        /// Added to each of the ports 9000, 9001, 8888, 8889 and 8085
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=56_534))]
        port_offset: u16,
    },
    /// The plain-text service of the sandbox
    #[command(after_help = "Example:\n  eddy hello --listen 127.0.0.1:8080")]
    Hello {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
        listen: SocketAddr,
    },
    /// Validate a configuration, and print it with every default spelled out
    #[command(after_help = "Example:\n  eddy check -c docs/sandbox/responder.yaml")]
    Check {
        /// The configuration (YAML)
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn log_format(text: &str) -> Result<LogFormat, &'static str> {
    LogFormat::named(text).ok_or("allowed: text, json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_help_has_an_example() {
        Cli::command().debug_assert();
        let mut cli = Cli::command();
        assert!(cli.render_long_help().to_string().contains("Example"));
        for command in cli.get_subcommands_mut().filter(|c| c.get_name() != "help") {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", command.get_name());
        }
    }
}
