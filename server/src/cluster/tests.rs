//! That no crate's table is missing where an engine makes them beforehand.

use std::collections::HashSet;
use std::path::Path;

use super::tables;

/// Declarations of tables in the sources of a folder.
fn declared(folder: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests") {
            declared(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for part in text.split(": Table = Table {").skip(1) {
                let name = part.split("name: \"").nth(1).unwrap();
                names.push(name.split('"').next().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn every_table_that_a_crate_declares_is_made_beforehand() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut names = Vec::new();
    for crate_folder in [
        "accounts",
        "broker",
        "ingest",
        "search",
        "history-api",
        "cluster",
        "server",
        "wire",
    ] {
        declared(&root.join(crate_folder).join("src"), &mut names);
    }
    let made: HashSet<&str> = tables().iter().map(|table| table.name).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in &names {
        assert!(made.contains(name.as_str()), "{name}");
    }
}

#[test]
fn no_two_tables_have_one_number_or_one_name() {
    let all = tables();
    let ids: HashSet<u16> = all.iter().map(|table| table.id).collect();
    // As they are called in CQL, where a log and rows with an owner have a second table.
    let names = all.iter().flat_map(|table| match table.kind {
        godwit_store::Kind::Log => vec![table.name.to_owned(), format!("{}_heads", table.name)],
        godwit_store::Kind::Owned => vec![table.name.to_owned(), format!("{}_fences", table.name)],
        _ => vec![table.name.to_owned()],
    });
    let names: Vec<String> = names.collect();
    assert_eq!(ids.len(), all.len());
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}
