//! The command line: what can be asked, and what the process ends with.
//!
//! `main.rs` parses here, runs what was asked and turns the result into an exit code.
//! Invariants: what was asked for goes to standard output, everything else to standard error.

pub mod app;
mod client;
mod config;
pub mod device;
mod keys;
pub mod node;
mod offline;
pub mod operator;
mod output;
pub mod process;
pub mod product;
pub mod progress;
mod registry;
mod remote;
pub mod resource;
pub mod session;
pub mod task;
pub mod token;
pub mod upload;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub use self::{
    client::ClientArgs,
    config::run as config,
    keys::run as keys,
    registry::run as registry,
    remote::{Group, Remote, run as remote},
};
use crate::{
    app::StartError,
    config::{Config, ConfigError, Loaded, Sources},
};

/// Exit code: it ran and something went wrong.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code: the command line cannot be understood (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// Exit code: the gateway cannot be reached, or has too much to do (`EX_UNAVAILABLE`).
pub const EXIT_UNAVAILABLE: u8 = 69;
/// Exit code: the token is not valid, or does not allow this (`EX_NOPERM`).
pub const EXIT_DENIED: u8 = 77;
/// Exit code: the configuration is wrong (`EX_CONFIG`).
pub const EXIT_CONFIG: u8 = 78;

/// A self-hosted gateway for fleets of devices.
#[derive(Debug, Parser)]
#[command(name = "headgate", version, propagate_version = false)]
#[command(subcommand_required = true, arg_required_else_help = false)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway
    Serve(SourceArgs),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Change the keys that the gateway keeps
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Look after the registry's tables
    #[command(subcommand)]
    Registry(RegistryCommand),
    /// Write what lets a shell complete commands to standard output
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Ask a running gateway.
    #[command(flatten)]
    Remote(Box<Remote>),
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell every mistake in it, without starting anything
    Check(SourceArgs),
    /// Show what is in force and where each value comes from, secrets redacted
    Print(SourceArgs),
}

/// What to do with the keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a new sealing key and seal every stored secret with it; the gateway must be stopped.
    /// Cut off, the same command goes on where it ended
    Rotate(SourceArgs),
}

/// What to do with the registry.
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Bring the tables of an older release up to date; the gateway must be stopped. Needed on PostgreSQL only:
    /// SQLite's are brought up to date at each start
    Migrate(SourceArgs),
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// Configuration file (TOML) [env: `HEADGATE_CONFIG`] [default: none, built-in defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of everything that is kept [env: `HEADGATE__DATA_DIR`]
    /// [default: headgate under the user's state directory]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl SourceArgs {
    /// Reads and checks the configuration; the environment is this process's.
    ///
    /// # Errors
    /// As `Config::load`.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        Config::load(&self.sources())
    }

    /// What the configuration is made from; the environment is this process's.
    pub fn sources(self) -> Sources {
        let named = || std::env::var_os("HEADGATE_CONFIG").filter(|name| !name.is_empty());
        let file = self.config.or_else(|| named().map(PathBuf::from));
        Sources::from_process(file, self.data_dir)
    }
}

/// Parses the command line; help, version and mistakes are told here and give the exit code.
///
/// # Errors
/// The code to exit with: 0 after help and version, 64 after a mistake.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(EXIT_USAGE)
        } else {
            ExitCode::SUCCESS
        }
    })
}

/// Writes what lets a shell complete commands.
pub fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "headgate", &mut script);
    tell(String::from_utf8_lossy(&script))
}

/// Tells what is wrong with the configuration and gives the exit code.
pub fn refuse(error: &ConfigError) -> ExitCode {
    complain(error);
    ExitCode::from(EXIT_CONFIG)
}

/// The exit code of a gateway that could not start.
pub fn ended(error: &StartError) -> ExitCode {
    ExitCode::from(if error.is_configuration() {
        EXIT_CONFIG
    } else {
        EXIT_FAILURE
    })
}

/// Writes to standard error; when nobody reads it there is nobody to tell.
pub fn complain(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// Writes to standard output and says whether it was taken.
fn tell(what: impl std::fmt::Display) -> ExitCode {
    let mut out = io::stdout().lock();
    match write!(out, "{what}").and_then(|()| out.flush()) {
        // A reader that has seen enough, as in `| head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("standard output: {error}"));
            ExitCode::from(EXIT_FAILURE)
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
