//! The command line: what there is, and how an error becomes one line and an exit code. What the commands do is in
//! `commands`.

use std::ffi::OsString;
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
    /// Makes or migrates keyspaces and tables of a CQL store, and says what it did. May be repeated; one at a time.
    Schema {
        /// Changes nothing: says whether the schema is this build's, code 1 if it is not.
        #[arg(long)]
        check: bool,
        /// Which store: --cql-nodes and what belongs to it.
        #[command(flatten)]
        options: Options,
    },
    /// Nodes of a cluster, as the running node at the configured admin listener sees them.
    #[command(subcommand)]
    Node(NodeVerb),
    /// Shards of a cluster, as the running node at the configured admin listener sees them.
    #[command(subcommand)]
    Shard(ShardVerb),
    /// Sessions of a user, asked of the running node at the configured admin listener: any node of a cluster.
    #[command(subcommand)]
    Session(SessionVerb),
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
        #[arg(long)]
        administrator: bool,
        /// Reads the password from standard input, up to the end of the first line, instead of asking for it.
        #[arg(long)]
        password_stdin: bool,
        /// Where the data folder is.
        #[command(flatten)]
        place: Place,
    },
}

/// What is done about nodes.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Lists them: a line each.
    Ls(Options),
    /// Has a node give up its shards and leave the cluster; its process goes on.
    Drain {
        /// Its name; without it, the node that is asked.
        name: Option<String>,
        /// How to find a running node.
        #[command(flatten)]
        options: Options,
    },
}

/// What is done about shards.
#[derive(Debug, Subcommand)]
pub enum ShardVerb {
    /// Lists them: a line each, with group, number, owner, and the view in which the node that is asked took it up.
    Ls(Options),
}

/// What is done about sessions.
#[derive(Debug, Subcommand)]
pub enum SessionVerb {
    /// Lists those of a user: a line each.
    Ls {
        /// Name or id of the user.
        user: String,
        /// How to find a running node.
        #[command(flatten)]
        options: Options,
    },
    /// Ends the connection of a client (MQTT 5: reason 0x98); its session stays, and it may come back.
    Kick {
        /// Name or id of the user.
        user: String,
        /// Client id.
        #[arg(required_unless_present = "all")]
        client: Option<String>,
        /// All clients of the user.
        #[arg(long, conflicts_with = "client")]
        all: bool,
        /// Ends the session too, with its subscriptions and what it is owed. Its client, if it comes back, begins anew.
        #[arg(long)]
        forget: bool,
        /// How to find a running node.
        #[command(flatten)]
        options: Options,
    },
}

/// How a data folder and its server are found, by the options that all commands have for it.
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
    pub admin: Option<crate::config::Listen>,
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
    ExitCode::from(run(std::env::args_os()))
}

/// The same of these words, of which the first is the program; gives the exit code.
pub fn run<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> u8 {
    match Cli::try_parse_from(words) {
        Ok(cli) => commands::run(cli),
        Err(help) if matches!(help.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Nothing to be done about a closed standard output.
            let _ = help.print();
            0
        }
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = help.print();
            USAGE
        }
        Err(error) => {
            commands::say_error(&one_line(&error));
            USAGE
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
