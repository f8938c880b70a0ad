//! That every case can fail: `killed.txt`, which the saboteur writes, and `elsewhere.txt`, kept by hand, with what failed
//! on another broker and on builds that were broken on purpose. Read here, and asked by `report`.

use std::collections::{BTreeMap, BTreeSet};

/// Where the saboteur writes.
pub(crate) const KILLED: &str = "tests/conformance/killed.txt";
/// Where other failures are.
pub(crate) const ELSEWHERE: &str = "tests/conformance/elsewhere.txt";

/// What made cases fail, by `version case`, the most telling first.
pub(crate) type Killers = BTreeMap<String, Vec<String>>;

/// What `killed.txt` says.
#[derive(Debug, Default)]
pub(crate) struct Killed {
    /// Mutations: cases in which it did something, cases that it made fail, and its words.
    pub(crate) mutations: BTreeMap<String, (usize, usize, String)>,
    pub(crate) cases: Killers,
    /// How many mutations made each case fail.
    pub(crate) counts: BTreeMap<String, usize>,
}

impl Killed {
    pub(crate) fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((head, rest)) = line.split_once(": ") else {
                continue;
            };
            if let Some(name) = head.strip_prefix("mutation ") {
                let mut parts = rest.splitn(3, ' ');
                let mut number = || parts.next().and_then(|it| it.parse().ok()).unwrap_or(0);
                let (killed, fired) = (number(), number());
                let says = parts.next().unwrap_or_default().to_owned();
                found.mutations.insert(name.to_owned(), (fired, killed, says));
            } else if let Some((count, names)) = rest.split_once(' ') {
                let names = names.split(", ").map(str::to_owned).collect();
                found.cases.insert(head.to_owned(), names);
                found
                    .counts
                    .insert(head.to_owned(), count.parse().unwrap_or_default());
            }
        }
        found
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "# Written by `cargo run -p godwit-conformance --bin godwit-saboteur -- --write`; see README.md.\n\
             # mutation NAME: cases that it made fail, cases in which it did something, what it does\n",
        );
        for (name, (fired, killed, says)) in &self.mutations {
            text.push_str(&format!("mutation {name}: {killed} {fired} {says}\n"));
        }
        text.push_str(
            "# version case: how many mutations made it fail, and those that make the fewest others fail\n",
        );
        for (case, names) in &self.cases {
            let count = self.counts.get(case).copied().unwrap_or(names.len());
            text.push_str(&format!("{case}: {count} {}\n", names.join(", ")));
        }
        text
    }
}

/// What `elsewhere.txt` says: lines `== where` and below each the cases that failed there, `version case`.
pub(crate) fn elsewhere(text: &str) -> Killers {
    let mut found = Killers::new();
    let mut place = "";
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            place = title.split(": ").next().unwrap_or(title);
        } else if !line.is_empty() {
            found.entry(line.to_owned()).or_default().push(place.to_owned());
        }
    }
    found
}

/// Both together.
pub(crate) fn all(killed: &str, elsewhere_text: &str) -> Killers {
    let mut all = Killed::read(killed).cases;
    for (case, places) in elsewhere(elsewhere_text) {
        let known = all.entry(case).or_default();
        let mut seen: BTreeSet<String> = known.iter().cloned().collect();
        known.extend(places.into_iter().filter(|place| seen.insert(place.clone())));
    }
    all
}

#[cfg(test)]
mod tests {
    use godwit_e2e::binaries::workspace;

    use super::*;
    use crate::cases;
    use crate::sabotage;
    use crate::wire::Version;

    #[test]
    fn what_is_committed_names_cases_and_mutations_that_exist() {
        let read = |name| std::fs::read_to_string(workspace().join(name)).unwrap();
        let mut exist = BTreeSet::new();
        for case in cases::all() {
            for version in [Version::V311, Version::V5] {
                if case.runs_on(version) {
                    exist.insert(format!("{} {}", version.name(), case.name));
                }
            }
        }
        let killed = Killed::read(&read(KILLED));
        let gone = |cases: &Killers| -> Vec<String> {
            cases
                .keys()
                .filter(|case| !exist.contains(*case))
                .cloned()
                .collect()
        };
        assert!(gone(&killed.cases).is_empty(), "{:?}", gone(&killed.cases));
        let elsewhere = elsewhere(&read(ELSEWHERE));
        assert!(gone(&elsewhere).is_empty(), "{:?}", gone(&elsewhere));
        let mutations: BTreeSet<String> = sabotage::all().into_iter().map(|it| it.name).collect();
        for name in killed.cases.values().flatten() {
            assert!(mutations.contains(name), "{name}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "mutation a-b: 3 9 does: this\n5.0 x::y: 7 a-b, c\n";
        let killed = Killed::read(text);
        assert_eq!(killed.mutations["a-b"], (9, 3, "does: this".to_owned()));
        assert_eq!(killed.cases["5.0 x::y"], ["a-b", "c"]);
        assert_eq!(
            killed
                .text()
                .lines()
                .filter(|line| !line.starts_with('#'))
                .count(),
            2
        );
        let all = all(
            text,
            "# said\n== mosquitto 9\n5.0 x::y\n== by hand 1: nothing is read\n3.1.1 x::z\n",
        );
        assert_eq!(all["5.0 x::y"], ["a-b", "c", "mosquitto 9"]);
        assert_eq!(all["3.1.1 x::z"], ["by hand 1"]);
    }
}
