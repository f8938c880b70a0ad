//! An authority of our own for tests of TLS: certificates of servers and of clients, revocation lists, and clients that
//! speak TLS with them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// A certificate's files.
#[derive(Clone)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub fn cert(&self) -> &str {
        self.cert.to_str().unwrap()
    }

    pub fn key(&self) -> &str {
        self.key.to_str().unwrap()
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }
}

/// Makes certificates into a folder; its own is `NAME.pem` there.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    name: String,
    pub file: PathBuf,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, issuer.pem()).unwrap();
        Self {
            issuer,
            folder: folder.to_owned(),
            name: name.to_owned(),
            file,
        }
    }

    /// Of a server with these names.
    pub fn server(&self, file: &str, names: &[&str]) -> Files {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.make(file, CertificateParams::new(names).unwrap())
    }

    /// Of a client, with this serial number.
    pub fn client(&self, name: &str, serial: u64) -> Files {
        self.make(&format!("{}-{name}-{serial}", self.name), client(name, serial))
    }

    /// Of a client, over since 2020.
    pub fn expired(&self, name: &str) -> Files {
        let mut params = client(name, 999);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.make("expired", params)
    }

    fn make(&self, file: &str, params: CertificateParams) -> Files {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        write(&self.folder, file, &cert.pem(), &key)
    }

    /// A revocation list with these serial numbers.
    pub fn revoke(&self, file: &Path, serials: &[u64]) {
        let now = date_time_ymd(2024, 1, 1);
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(serials.len() as u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        std::fs::write(file, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
    }

    /// A client's settings that trust this authority's servers.
    pub fn trusting(&self, shown: Option<&Files>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.file).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some(files) => builder
                .with_client_auth_cert(
                    vec![files.der()],
                    PrivateKeyDer::from_pem_file(&files.key).unwrap(),
                )
                .unwrap(),
        })
    }
}

fn client(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

/// Signed by itself.
pub fn self_signed(folder: &Path, name: &str) -> Files {
    let key = KeyPair::generate().unwrap();
    let cert = client(name, 1).self_signed(&key).unwrap();
    write(folder, "self-signed", &cert.pem(), &key)
}

fn write(folder: &Path, file: &str, cert: &str, key: &KeyPair) -> Files {
    let files = Files {
        cert: folder.join(format!("{file}.crt")),
        key: folder.join(format!("{file}.key")),
    };
    std::fs::write(&files.cert, cert).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// A client over TLS.
pub struct Tls(pub StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    /// Connects; the handshake is done with the first byte.
    pub fn to(port: u16, name: &str, config: &Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = ClientConnection::new(config.clone(), name).unwrap();
        Self(StreamOwned::new(session, socket))
    }

    /// Sends a packet; the next one of the server, or why there is none.
    pub fn ask(&mut self, packet: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0.write_all(packet)?;
        self.packet()
    }

    /// The next packet of the server, all of which are below 128 bytes here.
    pub fn packet(&mut self) -> std::io::Result<Vec<u8>> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut rest = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut rest)?;
        Ok([&head[..], &rest].concat())
    }

    /// The certificate that the server showed; after the first packet.
    pub fn shown(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

/// The status of an answer; reads the head only.
pub fn http_status(stream: &mut impl std::io::Read) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head)
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Upgrades, sends a packet, gives the answer.
pub fn web_socket(stream: &mut (impl std::io::Read + std::io::Write), packet: &[u8]) -> Vec<u8> {
    let ask = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    stream.write_all(ask.as_bytes()).unwrap();
    assert_eq!(http_status(stream), 101);
    let frame = [&[0x82, 0x80 | packet.len() as u8, 0, 0, 0, 0][..], packet].concat();
    stream.write_all(&frame).unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut content = vec![0; usize::from(head[1])];
    stream.read_exact(&mut content).unwrap();
    content
}

/// What a client does that never finishes its handshake.
pub fn abort(port: u16, way: usize, connect: &[u8]) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // The first bytes of a ClientHello that announces 200 more.
    let hello = [&[0x16, 3, 1, 0, 204, 1, 0, 0, 200, 3, 3][..], &[7; 90]].concat();
    let sent = match way % 5 {
        0 => &[][..],
        1 => &hello[..3],
        2 => &hello[..],
        3 => b"GET / HTTP/1.1\r\n\r\n",
        _ => connect,
    };
    let _ = socket.write_all(sent);
    if way.is_multiple_of(2) {
        // With a reset where something is unread.
        drop(socket);
    } else {
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let _ = socket.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = socket.read_to_end(&mut Vec::new());
    }
}
