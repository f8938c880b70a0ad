//! docs/limits.md, written from one list of every limit that a client can meet (`table`). Values are the real ones: of
//! options their defaults, of constants what the compiler or their line of source says. Only tests use this.

mod source;
mod table;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use confique::Config as _;
use confique::meta::{Expr, FieldKind, LeafKind};

use crate::Config;
use table::{At, LIMITS, Limit};

const ABOVE: &str = "\
# Limits

Every limit that a client can meet, by what it protects. This page is generated from the code (`BLESS=1 cargo test -p
godwit-server limits`); a test fails when it is not what the code says, when an option or a metric named here does not exist, and
when the test that reaches a limit does not (–: none does yet). Tests in `tests/attacks` reach it beside bystanders whose loss, order and latency,
before and during, are judged; what they measured is in [results/attacks.txt](results/attacks.txt). \"Long form\": not in each run of CI. Where no
such test is, or no metric, the reason stands there in italics.

What stands in `CAPITALS` is a constant, what stands in `small_letters` an option of the configuration with its default. \"Closed\"
in 3.1.1 is without a word: it has no packet for a reason. A metric is that of /metrics without `_total`; in braces is its label.
Where nothing is said of a client that meets a limit, nobody else notices.
";

/// The repository's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn expr(value: &Expr) -> String {
    match value {
        Expr::Str(text) => (*text).to_owned(),
        Expr::Bool(value) => value.to_string(),
        Expr::Integer(number) => number
            .to_string()
            .parse()
            .map_or_else(|_| number.to_string(), grouped),
        Expr::Array([]) => "none".to_owned(),
        other => format!("{other:?}"),
    }
}

/// An option's default; `None`: there is no such option.
fn default_of(option: &str) -> Option<String> {
    let field = Config::META.fields.iter().find(|field| field.name == option)?;
    match &field.kind {
        FieldKind::Leaf {
            kind: LeafKind::Required { default: Some(value) },
            ..
        } => Some(expr(value)),
        FieldKind::Leaf { .. } => Some("none".to_owned()),
        FieldKind::Nested { .. } => None,
    }
}

/// `1,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `64 KiB` where it is one.
fn bytes(number: u64) -> String {
    let is = |size: u64| number >= size && number.is_multiple_of(size);
    if is(1 << 20) {
        return format!("{} MiB", grouped(number >> 20));
    }
    if number > 1 << 20 && is(1 << 18) {
        return format!("{:.2} MiB", number as f64 / f64::from(1 << 20));
    }
    if is(1 << 10) {
        return format!("{} KiB", grouped(number >> 10));
    }
    format!("{} bytes", grouped(number))
}

fn value(limit: &Limit) -> String {
    match &limit.at {
        At::Option(option, unit) => {
            let value = default_of(option).unwrap_or_else(|| panic!("there is no option {option}"));
            let value = match (*unit, value.replace(',', "").parse()) {
                ("bytes", Ok(number)) => bytes(number),
                ("", _) => value,
                _ => format!("{value} {unit}"),
            };
            format!("`{option}` = {value}")
        }
        At::Count(name, number) => format!("`{name}` = {}", grouped(*number)),
        At::Bytes(name, number) => format!("`{name}` = {}", bytes(*number)),
        At::Millis(name, number) if number.is_multiple_of(1_000) => {
            format!("`{name}` = {} s", grouped(number / 1_000))
        }
        At::Millis(name, number) => format!("`{name}` = {} ms", grouped(*number)),
        At::Source(file, name, unit) => {
            let number = source::constant(&root(), file, name)
                .unwrap_or_else(|wrong| panic!("{name} of {file}: {wrong}"));
            let shown = match *unit {
                "bytes" => bytes(number),
                "" => grouped(number),
                unit => format!("{} {unit}", grouped(number)),
            };
            format!("`{name}` = {shown}")
        }
    }
}

/// The page.
fn page() -> String {
    let mut out = ABOVE.to_owned();
    for (heading, limits) in LIMITS {
        let _ = write!(
            out,
            "\n## {heading}\n\n| limit | where, default | what happens at it | 5.0 | 3.1.1 | HTTP | metric | reached in |\n\
             |---|---|---|---|---|---|---|---|\n"
        );
        for limit in limits() {
            let or_none = |text: &str| {
                if text.is_empty() {
                    "–".to_owned()
                } else {
                    text.to_owned()
                }
            };
            let metric = match (limit.metric, limit.uncounted) {
                ("", "") => "–".to_owned(),
                ("", why) => format!("– *{why}*"),
                (metric, _) => format!("`{metric}`"),
            };
            let tests: Vec<String> = limit
                .tests
                .iter()
                .map(|test| {
                    let (file, name) = test.split_once("::").unwrap_or((test, ""));
                    let (name, form) = name.split_once(' ').unwrap_or((name, ""));
                    format!("[{name}](../{file}) {form}").trim_end().to_owned()
                })
                .collect();
            let mut tests = or_none(&tests.join(", "));
            if !limit.alone.is_empty() {
                let _ = write!(tests, " *{}*", limit.alone);
            }
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {metric} | {} |",
                limit.name,
                value(&limit),
                limit.effect,
                or_none(limit.v5),
                or_none(limit.v311),
                or_none(limit.http),
                tests
            );
        }
    }
    out
}

fn all() -> impl Iterator<Item = Limit> {
    LIMITS.iter().flat_map(|(_, limits)| limits())
}

mod tests {
    use crate::{Listeners, Shutdown, serve};

    use super::*;

    #[test]
    fn the_committed_page_of_limits_is_the_generated_one() {
        let path = root().join("docs/limits.md");
        let page = page();
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == page,
            "run: BLESS=1 cargo test -p godwit-server limits"
        );
    }

    #[test]
    fn every_test_of_a_limit_exists() {
        for limit in all() {
            for test in limit.tests {
                let (file, name) = test.split_once("::").unwrap();
                let name = name.split(' ').next().unwrap();
                let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
                assert!(
                    text.contains(&format!("fn {name}(")),
                    "{}: there is no {test}",
                    limit.name
                );
            }
        }
    }

    #[test]
    fn every_limit_has_a_metric_and_bystanders_or_a_reason() {
        for limit in all() {
            let name = limit.name;
            assert!(
                limit.metric.is_empty() != limit.uncounted.is_empty(),
                "{name}: a metric, or why there is none"
            );
            let beside = limit.tests.iter().any(|test| test.starts_with("tests/attacks/"));
            assert!(
                beside == limit.alone.is_empty(),
                "{name}: a test beside bystanders, or why there is none"
            );
        }
    }

    /// Those of them that are tables name each limit and its constant as the page does.
    #[test]
    fn the_tables_of_the_attacks_are_those_of_the_page() {
        let source = source_of(&root().join("tests/attacks/src/attacks/limits"));
        let named = |limit: &Limit| {
            let (At::Option(at, _)
            | At::Count(at, _)
            | At::Bytes(at, _)
            | At::Millis(at, _)
            | At::Source(_, at, _)) = &limit.at;
            source.contains(&format!("\"{}\", \"{at}\"", limit.name))
        };
        let said = |limit: &Limit| {
            limit
                .tests
                .iter()
                .any(|test| test.starts_with("tests/attacks/tests/limits.rs::"))
        };
        for limit in all() {
            assert_eq!(named(&limit), said(&limit), "{}", limit.name);
        }
    }

    #[test]
    fn every_metric_of_a_limit_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::on(&folder.path().join("data")).unwrap();
        let node = serve(config, Some(Listeners::any_port().unwrap()), Shutdown::default()).unwrap();
        let admin = node.addresses().admin.unwrap();
        let mut answer = ureq::get(format!("http://{admin}/metrics")).call().unwrap();
        let shown = answer.body_mut().read_to_string().unwrap();
        node.stop();
        let folders = ["broker/src", "accounts/src", "history-api/src"];
        let counted_by =
            folders.map(|folder| source_of(&root().join(folder))).concat() + include_str!("http.rs");
        for limit in all().filter(|limit| !limit.metric.is_empty()) {
            // With a label it is shown when it was counted first: its name and label must be in the source.
            if let Some((name, label)) = limit.metric.split_once('{') {
                let label = label.split('"').nth(1).unwrap_or_default();
                for word in [name.trim_start_matches("godwit_"), label] {
                    // Some are registered under a prefix.
                    let rest = word.split_once('_').map_or(word, |(_, rest)| rest);
                    let quoted = [word, rest].map(|word| format!("\"{word}\""));
                    let quoted = quoted.into_iter().chain([format!("\"godwit_{word}\"")]);
                    let mut quoted = quoted;
                    let is_there = quoted.any(|word| counted_by.contains(&word));
                    assert!(is_there, "{}: nothing counts {word}", limit.name);
                }
                continue;
            }
            let shown = shown
                .lines()
                .filter_map(|line| line.strip_prefix("# HELP "))
                .any(|line| line.split(' ').next() == Some(limit.metric));
            assert!(shown, "{}: no {} at /metrics", limit.name, limit.metric);
        }
    }

    /// All source below a folder.
    fn source_of(folder: &Path) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                all.push_str(&source_of(&path));
            } else {
                all.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
            }
        }
        all
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(
            (bytes(16 << 10), bytes(5 << 18), bytes(100)),
            ("16 KiB".into(), "1.25 MiB".into(), "100 bytes".into())
        );
    }
}
