//! All attacks in their long form (`--short`: the short one), or those whose names hold a given word; prints the report.
//! Exit code 1 when something failed, 3 when only a time was over its mark.

#![allow(clippy::print_stdout, reason = "the report is what this program is for")]

use std::process::ExitCode;

use godwit_attacks::attacks::ALL;
use godwit_attacks::judge::run;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let long = !words.iter().any(|word| word == "--short");
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    let (mut failed, mut slow) = (0, 0);
    for make in ALL {
        let attack = make(long);
        if !wanted.is_empty() && !wanted.iter().any(|word| attack.name.contains(word.as_str())) {
            continue;
        }
        match run(&attack) {
            Ok(report) => {
                println!("{report}");
                failed += usize::from(!report.broken().is_empty());
                slow += usize::from(!report.slow(1).is_empty());
            }
            Err(error) => {
                println!("{}: FAILED: {error:#}\n", attack.name);
                failed += 1;
            }
        }
    }
    println!("{failed} failed, {slow} with a time over its mark");
    match (failed, slow) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    }
}
