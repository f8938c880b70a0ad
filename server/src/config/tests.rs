//! How options are read: the example, what counts before what, what is said of errors.

use std::path::Path;

use super::*;

fn none() -> Flags {
    <Flags as confique::Layer>::empty()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn the_committed_example_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../godwit.example.toml");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, Config::example()).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == Config::example(),
        "run: BLESS=1 cargo test -p godwit-server the_committed_example"
    );
}

#[test]
fn the_example_with_every_comment_sign_taken_away_is_a_configuration() {
    let uncommented: String = Config::example()
        .lines()
        .filter(|line| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1)
        .filter(|line| !line.trim_end().ends_with('='))
        .map(|line| format!("{}\n", &line[1..]))
        .collect();
    assert!(uncommented.contains("mqtt = \"127.0.0.1:1883\""));
    let config = Config::load(none(), Some(file(&uncommented).path())).unwrap();
    assert!(Settings::of(config).is_ok());
}

#[test]
fn a_flag_counts_before_the_file_and_the_file_before_the_default() {
    let file = file("http = \"127.0.0.1:1\"\nmqtt = \"127.0.0.1:2\"\n");
    let flags = Flags {
        mqtt: Some("off".parse().unwrap()),
        ..none()
    };
    let config = Config::load(flags, Some(file.path())).unwrap();
    assert_eq!(config.mqtt, Listen::Off);
    assert_eq!(config.http.to_string(), "127.0.0.1:1");
    assert_eq!(config.admin.to_string(), "127.0.0.1:9090");
}

#[test]
fn what_is_wrong_in_a_file_is_said_in_one_line_that_names_it() {
    for (text, named) in [
        ("mqqt = \"off\"\n", "mqqt"),
        ("mqtt = \"nowhere\"\n", "nowhere"),
        ("workers = \"many\"\n", "workers"),
        ("registration = \"ask\"\n", "ask"),
        ("mqtt = \n", "mqtt"),
        ("registration_token = 5\n", "registration_token"),
    ] {
        let error = Config::load(none(), Some(file(text).path()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(named) && !error.contains('\n'),
            "{text:?}: {error}"
        );
    }
    let error = Config::load(none(), Some(Path::new("/nowhere/godwit.toml"))).unwrap_err();
    assert!(error.to_string().contains("/nowhere/godwit.toml"));
}

#[test]
fn a_misspelt_variable_is_noticed() {
    let names = ["GODWIT_MQTT", "GODWIT_MQQT", "HOME", "GODWIT_CONFIG"].map(String::from);
    assert_eq!(unknown_variables(names.into_iter()), ["GODWIT_MQQT"]);
}

#[test]
fn rules_of_the_file_are_read() {
    let long = "[[acl]]\neffect = \"allow\"\nfilter = \"a/#\"\n[[acl]]\neffect = \"deny\"\naccess = \"publish\"\nfilter = \"b\"\n";
    let short = "[[acl]]\nallow = \"a/#\"\n[[acl]]\ndeny = \"b\"\naccess = \"publish\"\n";
    let rules = |text| {
        Config::load(none(), Some(file(text).path()))
            .unwrap()
            .acl
            .unwrap()
    };
    assert_eq!(rules(long).len(), 2);
    assert_eq!(rules(long), rules(short));
    for bad in [
        "allow = \"a\"\ndeny = \"b\"",
        "effect = \"deny\"",
        "access = \"both\"",
        "deny = \"a\"\nfilter = \"a\"",
    ] {
        let error = Config::load(none(), Some(file(&format!("[[acl]]\n{bad}\n")).path())).unwrap_err();
        assert!(error.to_string().contains("acl"), "{bad:?}: {error}");
    }
}
