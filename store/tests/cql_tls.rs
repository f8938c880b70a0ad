//! TLS to a real Cassandra that takes it: who its nodes are is checked, and it checks who comes. In builds with `cql-tls`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use godwit_cassandra::{Cluster, NODES_VARIABLE, Options as Start};
use godwit_store::cql::{Cql, Options, Replication, Tls, schema};
use godwit_store::testsuite::tables;
use godwit_store::{Ownership, Scope, Store, StoreError, Verdict, View};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;

/// An authority, and what it has signed, in a folder.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    ca: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca = folder.join(format!("{name}.pem"));
        std::fs::write(&ca, issuer.pem())?;
        Ok(Self { issuer, ca })
    }

    /// A certificate with its chain, and its key.
    fn sign(&self, names: Vec<String>) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names)?.signed_by(&key, &*self.issuer)?;
        Ok((certificate.pem() + &self.issuer.pem(), key.serialize_pem()))
    }
}

struct Held;

impl Ownership for Held {
    fn verdict(&self, _: Scope, _: View) -> Verdict {
        Verdict::Held
    }
}

/// What the server knows of TLS.
fn server(folder: &Path, authority: &Authority) -> Result<serde_json::Value> {
    // Which addresses it will have nobody knows yet.
    let addresses = (0..16).flat_map(|net| (1..4).map(move |host| Ipv4Addr::new(127, 0, net, host)));
    let (chain, key) = authority.sign(addresses.map(|address| address.to_string()).collect())?;
    let keys = folder.join("node.pem");
    std::fs::write(&keys, key + &chain)?;
    Ok(json!({
        "enabled": true,
        // Who speaks TLS must show a certificate; who does not, as what starts the server, is let in.
        "optional": true,
        "require_client_auth": true,
        "ssl_context_factory": { "class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory" },
        "keystore": keys,
        "truststore": &authority.ca,
    }))
}

fn is_refused(opened: Result<impl Sized, StoreError>) -> bool {
    matches!(opened, Err(StoreError::Unavailable(_) | StoreError::Refused(_)))
}

#[test]
fn the_way_to_the_store_is_encrypted_and_both_sides_show_who_they_are() -> Result<()> {
    if std::env::var_os(NODES_VARIABLE).is_some() {
        println!("skipped: nothing is started");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let (authority, stranger) = (
        Authority::new(folder.path(), "ca")?,
        Authority::new(folder.path(), "stranger")?,
    );
    let start = Start::default().set("client_encryption_options", server(folder.path(), &authority)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cluster = runtime.block_on(Cluster::start_with(1, start))?;

    let (chain, key) = authority.sign(vec!["godwit".into()])?;
    let client = (folder.path().join("client.pem"), folder.path().join("client.key"));
    std::fs::write(&client.0, chain)?;
    std::fs::write(&client.1, key)?;
    let mut options = Options::new(cluster.contact_points().iter().map(ToString::to_string).collect());
    options.replication = Replication::Simple(1);
    let tables = [tables::FACTS];
    options.tls = Some(Tls {
        ca: stranger.ca,
        client: Some(client.clone()),
    });
    assert!(
        is_refused(schema::create(&options, &tables)),
        "another authority signed the server's"
    );
    options.tls = Some(Tls {
        ca: authority.ca.clone(),
        client: None,
    });
    assert!(
        is_refused(schema::create(&options, &tables)),
        "it asks for a certificate"
    );

    options.tls = Some(Tls {
        ca: authority.ca,
        client: Some(client),
    });
    schema::create(&options, &tables)?;
    let engine = Cql::open(&options, &tables, Arc::new(Held))?;
    let session = runtime.block_on(cluster.session())?;
    let of = "SELECT ssl_enabled FROM system_views.clients";
    let rows = runtime
        .block_on(session.query_unpaged(of, ()))?
        .into_rows_result()?;
    let encrypted: Vec<bool> = rows
        .rows::<(bool,)>()?
        .map(|row| row.map(|row| row.0))
        .collect::<Result<_, _>>()
        .context("connections that the server has")?;
    assert!(
        encrypted.contains(&true) && encrypted.contains(&false),
        "{encrypted:?}"
    );
    engine.close()?;
    Ok(())
}
