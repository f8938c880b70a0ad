//! Who is let in: keys, certificates, clusters, starts.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::*;
use godwit_links::{Auth, Links, Metrics, Settings, StartError, Tls};
use godwit_wire::account::Secret;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use uuid::Uuid;

/// Long enough that a link which is made at all would be there.
const WHILE: Duration = Duration::from_millis(600);

/// `a` calls `b` and is refused, or refuses; nothing passes.
#[track_caller]
fn refuse_each_other(a: &Node, b: &Node) {
    know(&[a, b]);
    std::thread::sleep(WHILE);
    assert!(!a.links.is_up(b.start) && !b.links.is_up(a.start));
    assert_eq!((a.metrics.made(), b.metrics.made()), (0, 0));
}

#[test]
fn a_node_without_the_key_is_refused_on_both_sides() {
    let runtime = runtime();
    let node = |n, auth| Node::start_with(runtime.handle(), n, "test", auth, listener());
    let [right, wrong] = [KEY, "another key of the same length"];
    refuse_each_other(&node(1, key(right)), &node(2, key(wrong)));
    refuse_each_other(&node(1, key(right)), &node(2, Some(Auth::Open)));
    let (a, b) = (node(1, Some(Auth::Open)), node(2, key(right)));
    refuse_each_other(&a, &b);
    assert!(b.metrics.strangers() > 0, "counted");
    let (a, b) = (node(1, key(right)), node(2, key(right)));
    know(&[&a, &b]);
    up(&a, &b);
    let (a, b) = (node(1, Some(Auth::Open)), node(2, Some(Auth::Open)));
    know(&[&a, &b]);
    up(&a, &b);
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    let runtime = runtime();
    let node = |n, cluster| Node::start_with(runtime.handle(), n, cluster, key(KEY), listener());
    refuse_each_other(&node(1, "one"), &node(2, "other"));
}

#[test]
fn another_start_at_the_address_is_refused_until_it_is_known() {
    let runtime = runtime();
    let a = Node::start(runtime.handle(), 1);
    let b = Node::start(runtime.handle(), 3);
    let before = (Uuid::from_u128(2), b.addr.to_string());
    a.links.known(&[a.is(), before.clone()]);
    b.links.known(&[a.is(), b.is()]);
    std::thread::sleep(WHILE);
    assert!(!a.links.is_up(before.0) && a.metrics.made() == 0);
    a.links.known(&[a.is(), b.is()]);
    up(&a, &b);
}

#[test]
fn a_node_that_is_no_member_is_refused_until_it_is_one() {
    let runtime = runtime();
    let (a, b) = (Node::start(runtime.handle(), 1), Node::start(runtime.handle(), 2));
    a.links.known(&[a.is(), b.is()]);
    std::thread::sleep(WHILE);
    assert!(!a.links.is_up(b.start) && b.metrics.made() == 0 && b.metrics.strangers() > 0);
    b.links.known(&[a.is(), b.is()]);
    up(&a, &b);
}

#[test]
fn links_without_authentication_or_with_a_short_key_do_not_start() {
    let runtime = runtime();
    let start = |auth| {
        let settings = Settings {
            listen: listener(),
            cluster: "test".into(),
            start: Uuid::from_u128(1),
            node: "node".into(),
            auth,
        };
        let here = std::sync::Arc::new(Here::default());
        Links::start(runtime.handle(), settings, here, Metrics::default()).unwrap_err()
    };
    assert!(matches!(start(None), StartError::NoAuth));
    assert!(matches!(
        start(Some(Auth::Key(Secret("short".into())))),
        StartError::ShortKey
    ));
}

#[test]
fn connections_that_say_nothing_keep_no_node_out() {
    let runtime = runtime();
    let (a, b) = (Node::start(runtime.handle(), 1), Node::start(runtime.handle(), 2));
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(b.addr).unwrap()).collect();
    know(&[&a, &b]);
    up(&a, &b);
    drop(silent);
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A node's certificate for `names`, of `by`, that trusts `trusts`.
fn certified(names: &[&str], by: &Authority, trusts: &Authority, name: Option<&str>) -> Option<Auth> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, by)
        .unwrap();
    Some(Auth::Tls(Tls {
        chain: vec![certificate.der().clone()],
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        ca: vec![trusts.der().clone()],
        name: name.map(str::to_owned),
    }))
}

#[test]
fn nodes_with_certificates_of_one_authority_are_linked() {
    let runtime = runtime();
    let node = |n, auth| Node::start_with(runtime.handle(), n, "test", auth, listener());
    let ca = authority();
    for (names, name) in [(["127.0.0.1"], None), (["node.godwit"], Some("node.godwit"))] {
        let (a, b) = (
            node(1, certified(&names, &ca, &ca, name)),
            node(2, certified(&names, &ca, &ca, name)),
        );
        know(&[&a, &b]);
        up(&a, &b);
        a.send_all(b.start, &mut [request(1, 1)].into());
        until("an answer", || a.answered() == 1);
    }
}

#[test]
fn a_node_with_a_certificate_of_another_authority_or_name_or_none_is_refused() {
    let runtime = runtime();
    let node = |n, auth| Node::start_with(runtime.handle(), n, "test", auth, listener());
    let (ca, other) = (authority(), authority());
    let here = ["127.0.0.1"];
    let good = || certified(&here, &ca, &ca, None);
    refuse_each_other(&node(1, certified(&here, &other, &ca, None)), &node(2, good()));
    refuse_each_other(&node(1, good()), &node(2, certified(&here, &other, &ca, None)));
    refuse_each_other(
        &node(1, good()),
        &node(2, certified(&["127.0.0.2"], &ca, &ca, None)),
    );
    // A certificate of the authority, but another node's: it says that it is the one at 127.0.0.1.
    refuse_each_other(
        &node(1, certified(&["127.0.0.2"], &ca, &ca, None)),
        &node(2, good()),
    );
    refuse_each_other(&node(1, Some(Auth::Open)), &node(2, good()));
    refuse_each_other(&node(1, good()), &node(2, Some(Auth::Open)));
    // The caller's name counts too, where nodes have one.
    let named = |has: &str, wants| certified(&[has], &ca, &ca, Some(wants));
    refuse_each_other(
        &node(1, named("else.godwit", "node.godwit")),
        &node(2, named("node.godwit", "node.godwit")),
    );
}
