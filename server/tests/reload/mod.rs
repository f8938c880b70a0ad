//! SIGHUP with another configuration file: what counts at once, what is said of the rest, and a file that cannot be taken.

use std::path::Path;

use rustix::process::Signal;

use super::authority::{Authority, Files, Tls};
use super::connect;
use super::support::{Server, eventually, free_port};

/// The line of the log that says this, after the one at `from`.
fn line(server: &Server, from: usize, said: &str) -> String {
    eventually(said, || {
        let log = server.log();
        log.lines()
            .skip(from)
            .find(|line| line.contains(said))
            .map(str::to_owned)
    })
}

fn write(config: &Path, files: &Files, more: &str) {
    let text = format!(
        "tls_cert = {:?}\ntls_key = {:?}\n{more}\n",
        files.cert(),
        files.key()
    );
    std::fs::write(config, text).unwrap();
}

#[test]
fn a_reload_takes_other_files_of_tls_and_names_the_options_that_wait_for_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let [first, second] = ["first", "second"].map(|name| ours.server(name, &["127.0.0.1"]));
    let (config, port) = (folder.path().join("godwit.toml"), free_port());
    write(&config, &first, "");
    let at = format!("127.0.0.1:{port}");
    let words = [
        "--config",
        config.to_str().unwrap(),
        "--mqtts",
        &at,
        "--https",
        "off",
    ];
    let server = Server::start(folder.path(), &words);
    let shown = || {
        let mut client = Tls::to(port, "127.0.0.1", &ours.trusting(None));
        client.0.conn.complete_io(&mut client.0.sock).unwrap();
        client.shown()
    };
    let reload = || {
        let from = server.log().lines().count();
        server.signal(Signal::HUP);
        line(&server, from, "certificates read again");
        from
    };
    assert_eq!(shown(), first.der());

    write(&config, &second, "max_qos = 1\nregistrations_per_second = 7");
    let from = reload();
    assert_eq!(shown(), second.der());
    let told = line(&server, from, "only after a restart");
    assert!(
        told.contains("registrations_per_second, max_qos") && !told.contains("tls_cert"),
        "{told}"
    );

    // A slip in the file does not keep a certificate from being renewed.
    write(&config, &first, "max_qos = 3");
    let renewed = ours.server("second", &["127.0.0.1"]);
    let from = reload();
    assert_eq!(shown(), renewed.der());
    let told = line(&server, from, "the configuration and the acl rules stay");
    assert!(told.contains("max_qos is 3"), "{told}");

    write(&config, &first, "");
    let from = reload();
    assert_eq!(shown(), first.der());
    assert!(
        !server
            .log()
            .lines()
            .skip(from)
            .any(|line| line.contains("restart"))
    );
}

#[test]
fn who_came_by_a_certificate_is_put_out_when_certificates_count_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new(folder.path(), "ours");
    let (own, ann) = (ours.server("own", &["127.0.0.1"]), ours.client("ann", 1));
    let (config, port) = (folder.path().join("godwit.toml"), free_port());
    let by_certificate = format!("tls_client_auth = \"optional\"\ntls_client_ca = {:?}", ours.file);
    write(&config, &own, &by_certificate);
    let at = format!("127.0.0.1:{port}");
    let words = [
        "--config",
        config.to_str().unwrap(),
        "--mqtts",
        &at,
        "--https",
        "off",
    ];
    let server = Server::start(folder.path(), &words);
    let (_, token) = server.user("ann");
    let reload = || {
        let from = server.log().lines().count();
        server.signal(Signal::HUP);
        line(&server, from, "certificates read again");
    };
    let enters = |id: &str, shown: Option<&Files>, login| {
        let mut client = Tls::to(port, "127.0.0.1", &ours.trusting(shown));
        let code = client.ask(&connect(id, login)).unwrap()[3];
        (client, code)
    };
    let (mut by_token, code) = enters("token", None, Some(("ann", &token)));
    assert_eq!(code, 0);
    let (mut by_certificate_alone, code) = enters("phone", Some(&ann), None);
    assert_eq!(code, 0);
    reload();
    assert_eq!(by_certificate_alone.ask(&[0xc0, 0]).unwrap(), [0xd0, 0]);

    write(&config, &own, "");
    reload();
    let last = by_certificate_alone.packet().unwrap();
    assert_eq!((last[0], last[2]), (0xe0, 0x87), "{last:x?}");
    assert_eq!(by_token.ask(&[0xc0, 0]).unwrap(), [0xd0, 0]);
    let (_, code) = enters("phone", Some(&ann), None);
    assert_eq!(code, 0x87, "a certificate that nobody asked for is nothing");
    let (_, code) = enters("phone", Some(&ann), Some(("ann", &token)));
    assert_eq!(code, 0);

    // And where they count again, they do.
    write(&config, &own, &by_certificate);
    reload();
    let (_, code) = enters("phone", Some(&ann), None);
    assert_eq!(code, 0);
}
