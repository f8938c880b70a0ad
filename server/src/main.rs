//! The `godwit` binary: reads the command line, runs the command, ends with its exit code.

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use godwit_server::cli::{Cli, USAGE, one_line};
use godwit_server::commands;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
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
