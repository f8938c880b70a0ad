//! The attacks, one after another, with a report of each. Exit code 1 when something failed, 3 when only a time was over its mark.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use godwit_attacks::attacks::ALL;
use godwit_attacks::judge::run;

/// Attacks a server that it starts, and prints what became of it and of those beside it; `GODWIT_BIN` names the server's program.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Words; attacks whose names hold one of them are run. All if there is none.
    words: Vec<String>,
    /// The short form, as the tests have it.
    #[arg(long)]
    short: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run_all(&cli, &mut io::stdout().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "godwit-attacks: {error}");
            ExitCode::from(2)
        }
    }
}

/// Gives the exit code; an error is one of the output.
fn run_all(cli: &Cli, to: &mut impl Write) -> io::Result<u8> {
    let (mut failed, mut slow) = (0, 0);
    for make in ALL {
        let attack = make(!cli.short);
        let is_wanted = |word: &String| attack.name.contains(word.as_str());
        if !cli.words.is_empty() && !cli.words.iter().any(is_wanted) {
            continue;
        }
        match run(&attack) {
            Ok(report) => {
                writeln!(to, "{report}")?;
                failed += usize::from(!report.broken().is_empty());
                slow += usize::from(!report.slow(1).is_empty());
            }
            Err(error) => {
                writeln!(to, "{}: FAILED: {error:#}\n", attack.name)?;
                failed += 1;
            }
        }
    }
    writeln!(to, "{failed} failed, {slow} with a time over its mark")?;
    Ok(match (failed, slow) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 1,
    })
}
