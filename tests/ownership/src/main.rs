//! Replays seeds with a readable trace, or runs many of them without.

use std::process::ExitCode;

use godwit_ownership_simulation::{Bug, run};

const USAGE: &str = "godwit-ownership [--bug NAME] SEED...        replays each seed and prints what happened
godwit-ownership [--bug NAME] --many FROM COUNT  runs COUNT seeds on all cores, prints those that break a promise";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut bug = Bug::None;
    if args.first().is_some_and(|arg| arg == "--bug") && args.len() > 1 {
        let Some((_, found)) = Bug::ALL.iter().find(|(name, _)| *name == args[1]) else {
            let names: Vec<&str> = Bug::ALL.iter().map(|(name, _)| *name).collect();
            eprintln!("no such bug; there are {}", names.join(", "));
            return ExitCode::from(2);
        };
        bug = *found;
        args.drain(..2);
    }
    let many = args.first().is_some_and(|arg| arg == "--many");
    let numbers: Option<Vec<u64>> = args
        .iter()
        .skip(usize::from(many))
        .map(|arg| arg.parse().ok())
        .collect();
    match numbers.as_deref() {
        Some([from, count]) if many => all(*from, *count, bug),
        Some(seeds) if !many && !seeds.is_empty() => replay(seeds, bug),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the trace is what the program is for")]
fn replay(seeds: &[u64], bug: Bug) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for seed in seeds {
        let outcome = run(*seed, bug, true);
        for line in &outcome.trace {
            println!("{line}");
        }
        match outcome.broken {
            Some(why) => {
                println!("seed {seed}: {why}");
                code = ExitCode::FAILURE;
            }
            None => println!(
                "seed {seed}: all kept, {} told, {} events, healed in {} ms",
                outcome.told, outcome.events, outcome.healed_ms
            ),
        }
    }
    code
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn all(from: u64, count: u64, bug: Bug) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let ran: Vec<(u64, u64, u64, u64)> = std::thread::scope(|scope| {
        let some = |thread| {
            move || {
                let (mut bad, mut told, mut events, mut healed) = (0, 0, 0, 0);
                for seed in (from..from + count)
                    .skip(thread as usize)
                    .step_by(threads as usize)
                {
                    let outcome = run(seed, bug, false);
                    told += outcome.told;
                    events += outcome.events;
                    healed = healed.max(outcome.healed_ms);
                    if let Some(why) = outcome.broken {
                        bad += 1;
                        println!("seed {seed}: {why}");
                    }
                }
                (bad, told, events, healed)
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(some(thread))).collect();
        running.into_iter().filter_map(|run| run.join().ok()).collect()
    });
    let sum = |of: fn(&(u64, u64, u64, u64)) -> u64| ran.iter().map(of).sum::<u64>();
    let bad = sum(|run| run.0);
    let healed = ran.iter().map(|run| run.3).max().unwrap_or(0);
    println!(
        "seeds {from} to {}: {bad} broken, {} told, {} events, healed in at most {healed} ms",
        from + count - 1,
        sum(|run| run.1),
        sum(|run| run.2)
    );
    if bad == 0 && ran.len() as u64 == threads {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
