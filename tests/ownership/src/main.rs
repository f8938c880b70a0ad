//! Replays seeds with a readable trace, or runs many of them without.

use std::process::ExitCode;

use godwit_ownership_simulation::{Bug, Formed, Kind, form, form_after_dead_ones, run_in};

const USAGE: &str = "godwit-ownership [--bug NAME] [--world KIND] SEED...        replays each seed and prints what happened
godwit-ownership [--bug NAME] [--world KIND] --many FROM COUNT  runs COUNT seeds on all cores, prints those that break a promise
godwit-ownership --form NODES  what it takes NODES nodes to form a view, at once and one by one, and one after 200 dead ones";

const WORLDS: [(&str, Kind); 5] = [
    ("any", Kind::Any),
    ("mixed", Kind::Mixed),
    ("torn", Kind::Torn),
    ("stops", Kind::Stops),
    ("sleeper", Kind::Sleeper),
];

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
    if let [form, nodes] = &args[..]
        && form == "--form"
        && let Ok(nodes) = nodes.parse()
    {
        return forms(nodes);
    }
    let mut kind = Kind::Any;
    if args.first().is_some_and(|arg| arg == "--world") && args.len() > 1 {
        let Some((_, found)) = WORLDS.iter().find(|(name, _)| *name == args[1]) else {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        };
        kind = *found;
        args.drain(..2);
    }
    let many = args.first().is_some_and(|arg| arg == "--many");
    let numbers: Option<Vec<u64>> = args
        .iter()
        .skip(usize::from(many))
        .map(|arg| arg.parse().ok())
        .collect();
    match numbers.as_deref() {
        Some([from, count]) if many => all(kind, *from, *count, bug),
        Some(seeds) if !many && !seeds.is_empty() => replay(kind, seeds, bug),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "the trace is what the program is for")]
fn replay(kind: Kind, seeds: &[u64], bug: Bug) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for seed in seeds {
        let outcome = run_in(kind, *seed, bug, true);
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
fn all(kind: Kind, from: u64, count: u64, bug: Bug) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let ran: Vec<[u64; 5]> = std::thread::scope(|scope| {
        let some = |thread| {
            move || {
                let [mut bad, mut told, mut events, mut healed, mut late] = [0; 5];
                for seed in (from..from + count)
                    .skip(thread as usize)
                    .step_by(threads as usize)
                {
                    let outcome = run_in(kind, seed, bug, false);
                    told += outcome.told;
                    late += outcome.late;
                    events += outcome.events;
                    healed = healed.max(outcome.healed_ms);
                    if let Some(why) = outcome.broken {
                        bad += 1;
                        println!("seed {seed}: {why}");
                    }
                }
                [bad, told, events, healed, late]
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(some(thread))).collect();
        running.into_iter().filter_map(|run| run.join().ok()).collect()
    });
    let sum = |at: usize| ran.iter().map(|run| run[at]).sum::<u64>();
    let bad = sum(0);
    let healed = ran.iter().map(|run| run[3]).max().unwrap_or(0);
    println!(
        "seeds {from} to {}: {bad} broken, {} told, {} events, {} writes after a lease and none confirmed, healed in at most {healed} ms",
        from + count - 1,
        sum(1),
        sum(2),
        sum(4)
    );
    if bad == 0 && ran.len() as u64 == threads {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn forms(nodes: u64) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    let say = |what: &str, seed, formed: Option<Formed>| match formed {
        Some(formed) => println!("{what}, seed {seed}: {formed:?}"),
        None => println!("{what}, seed {seed}: no view within a minute"),
    };
    for seed in 1..=5 {
        for (what, apart) in [("at once", 0), ("one each 100 ms", 100), ("one each 2 s", 2_000)] {
            let formed = form(seed, nodes, apart);
            if formed.is_none() {
                code = ExitCode::FAILURE;
            }
            say(what, seed, formed);
        }
        say("one after 200 dead ones", seed, form_after_dead_ones(seed));
    }
    code
}
