//! The command line: what there is, and how an error becomes one line and an exit code. What the commands do is in
//! `commands`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::commands;
use crate::config::Flags;

/// Exit code of a command that did not work.
pub const FAILED: u8 = 1;
/// Exit code of options or a configuration that cannot be taken.
pub const USAGE: u8 = 2;

/// A messaging platform on MQTT: an acknowledged message is a stored message.
#[derive(Debug, Parser)]
#[command(name = "godwit", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Verb,
}

/// What `godwit` does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serves until SIGTERM or SIGINT.
    Serve(Options),
    /// Writes a backup while `godwit serve` runs on the same data folder.
    Backup {
        /// Where to: a folder on the server's machine, empty or new.
        dir: PathBuf,
        /// How to find it.
        #[command(flatten)]
        options: Options,
    },
    /// Makes a data folder (empty or new) from a backup; nothing may be serving it.
    Restore {
        /// The backup.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Where to.
        #[command(flatten)]
        options: Options,
    },
    /// Users.
    #[command(subcommand)]
    User(UserVerb),
    /// Says whether options, environment and file make a configuration.
    CheckConfig(Options),
}

/// What is done about users.
#[derive(Debug, Subcommand)]
pub enum UserVerb {
    /// Makes a user: through the running server if one serves the data folder, else in the folder itself.
    Add {
        /// User name: 2 to 32 of a-z, 0-9, ".", "_", "-".
        name: String,
        /// Makes an administrator of the installation.
        #[arg(long = "admin")]
        administrator: bool,
        /// Reads the password from standard input, up to the end of the first line, instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
        /// Where the data folder is.
        #[command(flatten)]
        place: Place,
    },
}

/// How a data folder and its server are found, where `--admin` means something else.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "GODWIT_CONFIG")]
    pub config: Option<PathBuf>,
    /// The data folder.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the running server's admin listener.
    #[arg(long, value_name = "ADDR")]
    pub admin_listener: Option<crate::config::Listen>,
}

/// Options of the configuration, and its file.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Configuration file; see godwit.example.toml.
    #[arg(long, value_name = "FILE", env = "GODWIT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Each of them is also a variable of the environment and a line of the file.
    #[command(flatten)]
    pub flags: Flags,
}

/// Reads the command line, runs the command; the whole of a binary.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(commands::run(cli)),
        Err(help) if matches!(help.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Nothing to be done about a closed standard output.
            let _ = help.print();
            ExitCode::SUCCESS
        }
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = help.print();
            ExitCode::from(USAGE)
        }
        Err(error) => {
            commands::say_error(&one_line(&error));
            ExitCode::from(USAGE)
        }
    }
}

/// The first line of what is wrong, with a tip if there is one.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    format!("{}; see godwit --help", told.collect::<Vec<_>>().join(" "))
}
