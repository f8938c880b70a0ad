//! The command: `godwit-saboteur` runs conformance cases while it breaks the protocol between them and the server, and
//! says which cases fail under what. Everything else is in the library.

use std::io::Write;
use std::process::ExitCode;

use godwit_conformance::{Ask, sabotage};

const USAGE: &str = "godwit-saboteur [--write] [--new] [--case PART] [--mutation PART] [--at-once N]";

fn asked() -> Option<Ask> {
    let mut ask = Ask {
        mutation: String::new(),
        case: String::new(),
        new: false,
        write: false,
        at_once: 64,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--write" => ask.write = true,
            "--new" => ask.new = true,
            "--case" => ask.case = words.next()?,
            "--mutation" => ask.mutation = words.next()?,
            "--at-once" => ask.at_once = words.next()?.parse().ok().filter(|number| *number > 0)?,
            _ => return None,
        }
    }
    Some(ask)
}

fn main() -> ExitCode {
    let Some(ask) = asked() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match sabotage(&ask) {
        Ok(lines) => {
            let _ = writeln!(std::io::stdout(), "{lines}");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::FAILURE
        }
    }
}
