//! TLS on TCP (design P4): who may connect and write, and certificates that change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use device_api_grpc::{BindError, GrpcConfig, PlainTcp, TlsFiles, bind};
use device_api_proto::native;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::audit::{Log, check};
use crate::harness::{Native, Server, created, native_gpu, refused, soon};

/// A certificate and its key, as PEM and DER.
struct Identity {
    cert: String,
    key: String,
    chain: Vec<CertificateDer<'static>>,
    der: PrivateKeyDer<'static>,
}

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, common: &str, alternatives: Vec<SanType>) -> Identity {
        self.issue_with(common, alternatives, |_| ())
    }

    fn issue_with(
        &self,
        common: &str,
        alternatives: Vec<SanType>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = alternatives;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("signed");
        Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
            chain: vec![cert.der().clone()],
            der: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        }
    }

    fn server(&self) -> Identity {
        let name = "localhost".try_into().expect("a name");
        self.issue("server", vec![SanType::DnsName(name)])
    }

    fn agent(&self) -> Identity {
        self.issue("agent", Vec::new())
    }

    /// One that runs out at that time; certificates count in seconds.
    fn agent_until(&self, end: SystemTime) -> Identity {
        self.issue_with("agent", Vec::new(), |params| params.not_after = end.into())
    }
}

/// Files as a mounted secret has them: links through `..data`, which is swapped in one step.
struct Secret {
    dir: TempDir,
    generation: usize,
}

impl Secret {
    fn new(server: &Identity, ca: &Ca) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut secret = Self { dir, generation: 0 };
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            let link = secret.path(name);
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).expect("linked");
        }
        secret.swap(&server.cert, &server.key, &ca.pem());
        secret
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn swap(&mut self, cert: &str, key: &str, ca: &str) {
        self.generation += 1;
        let name = format!("..{}", self.generation);
        let next = self.path(&name);
        fs::create_dir(&next).expect("made");
        for (name, content) in [("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)] {
            fs::write(next.join(name), content).expect("written");
        }
        std::os::unix::fs::symlink(name, self.path("..new")).expect("linked");
        fs::rename(self.path("..new"), self.path("..data")).expect("swapped");
    }

    fn files(&self) -> TlsFiles {
        TlsFiles {
            cert: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: Some(self.path("ca.crt")),
        }
    }
}

async fn serve(secret: &Secret) -> Server {
    Server::start_with(|config| {
        config.tls = Some(secret.files());
        config.writers_tcp = vec!["cn:agent".into(), "uri:spiffe://d/a".into()];
    })
    .await
}

/// A client that trusts `ca` and shows `identity`.
fn client(ca: &Ca, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.0.der().clone()).expect("a CA");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.der.clone_key())
            .expect("a pair"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn connect(
    server: &Server,
    config: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let (connector, addr) = (TlsConnector::from(Arc::new(config)), server.tcp);
    let connect = service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let name = ServerName::try_from("localhost").expect("a name");
            let tcp = TcpStream::connect(addr).await?;
            let stream = connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    soon(endpoint.connect_with_connector(connect)).await
}

async fn native(server: &Server, ca: &Ca, identity: &Identity) -> Native {
    let config = client(ca, Some(identity));
    Native::new(connect(server, config).await.expect("connects"))
}

/// In TLS 1.3 a client hears that its certificate is refused when it first reads.
async fn is_refused(server: &Server, config: ClientConfig) {
    if let Ok(channel) = connect(server, config).await {
        let list = native::ListGpusRequest::default();
        soon(Native::new(channel).list_gpus(list))
            .await
            .expect_err("nobody is let in");
    }
}

async fn reloads(server: &Server, expected: &[bool]) {
    let mut reloads = server.observer.reloads.subscribe();
    soon(reloads.wait_for(|reloads| *reloads == expected))
        .await
        .expect("told");
}

#[tokio::test]
async fn p4_who_writes_over_tls_is_said_by_the_certificate() {
    let ca = Ca::new();
    let server = serve(&Secret::new(&ca.server(), &ca)).await;
    created(&mut native(&server, &ca, &ca.agent()).await, "gpu-0").await;
    let uri = "spiffe://d/a".try_into().expect("a URI");
    let spiffe = ca.issue("whoever", vec![SanType::URI(uri)]);
    created(&mut native(&server, &ca, &spiffe).await, "gpu-1").await;
    let known = server
        .store
        .state()
        .connections
        .keys()
        .cloned()
        .collect::<Vec<_>>();
    assert!(
        known.iter().any(|identity| **identity == *"cn:agent"),
        "{known:?}"
    );
    assert!(
        known
            .iter()
            .any(|identity| **identity == *"uri:spiffe://d/a"),
        "{known:?}"
    );

    let mut other = native(&server, &ca, &ca.issue("agent2", Vec::new())).await;
    let request = native::CreateGpuRequest {
        gpu: Some(native_gpu("gpu-2")),
    };
    let says = "the certificate says cn:agent2, which may only read";
    refused(
        other.create_gpu(request).await,
        Code::PermissionDenied,
        says,
    );
    other
        .list_gpus(native::ListGpusRequest::default())
        .await
        .expect("it reads");
    assert_eq!(
        *server.observer.refusals.lock().expect("lock"),
        ["certificate"]
    );
}

#[tokio::test]
async fn p4_without_a_certificate_that_we_trust_nobody_connects() {
    let (ca, strangers) = (Ca::new(), Ca::new());
    let server = serve(&Secret::new(&ca.server(), &ca)).await;
    is_refused(&server, client(&ca, None)).await;
    is_refused(&server, client(&ca, Some(&strangers.agent()))).await;
    let uri = format!("http://{}", server.tcp);
    let plain = Endpoint::from_shared(uri).expect("uri").connect().await;
    if let Ok(channel) = plain {
        let list = native::ListGpusRequest::default();
        soon(Native::new(channel).list_gpus(list))
            .await
            .expect_err("TLS alone is spoken");
    }
}

/// As many as there are turns to compute, twice, and one more: what waits for its client takes none.
#[tokio::test]
async fn handshakes_that_stall_hold_nobody_up() {
    let ca = Ca::new();
    let server = serve(&Secret::new(&ca.server(), &ca)).await;
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").expect("a name");
    let config = Arc::new(client(&ca, Some(&ca.agent())));
    let mut half = ClientConnection::new(config, name).expect("a client");
    half.write_tls(&mut hello).expect("a hello");
    let mut stalled = Vec::new();
    let served = async {
        for n in 0..130 {
            let mut stream = TcpStream::connect(server.tcp).await.expect("connects");
            // Some say nothing; some hear the answer, which costs a signature, and say no more.
            if n >= 65 {
                stream.write_all(&hello).await.expect("sent");
                stream.readable().await.expect("answered");
            }
            stalled.push(stream);
        }
        let mut client = native(&server, &ca, &ca.agent()).await;
        created(&mut client, "gpu-0").await;
    };
    // Before the first of those is given up.
    let patience = Duration::from_secs(4);
    tokio::time::timeout(patience, served)
        .await
        .expect("served");
}

#[tokio::test]
async fn p4_each_client_that_is_not_let_in_is_counted_with_the_reason_and_said() {
    let log = Log::installed();
    let (ca, strangers) = (Ca::new(), Ca::new());
    let server = serve(&Secret::new(&ca.server(), &ca)).await;
    let old = SystemTime::now() - Duration::from_secs(60);
    for config in [
        client(&ca, None),
        client(&ca, Some(&strangers.agent())),
        client(&ca, Some(&ca.agent_until(old))),
        client(&strangers, Some(&ca.agent())),
    ] {
        is_refused(&server, config).await;
    }
    let mut plain = TcpStream::connect(server.tcp).await.expect("connects");
    plain
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    let probe = TcpStream::connect(server.tcp).await.expect("connects");
    drop(probe);
    let expected = [
        "no-certificate",
        "unknown-issuer",
        "expired",
        "refused-by-client",
        "protocol",
    ];
    let mut failed = server.observer.handshakes.subscribe();
    let failed = soon(failed.wait_for(|failed| failed.len() >= expected.len())).await;
    assert_eq!(*failed.expect("told"), expected);
    for (reason, says) in [
        ("no-certificate", "--tls-client-ca"),
        ("unknown-issuer", "add its CA"),
        ("expired", "renew it"),
        ("refused-by-client", "--tls-cert"),
        ("protocol", "TLS 1.3"),
    ] {
        let lines = log.lines(&format!("reason=\"{reason}\""));
        let line = lines.last().expect("a line");
        check(line, &["WARN", "peer=127.0.0.1:", "refused", says]);
    }
}

/// Whoever connects anew each time is counted each time, and has no more lines than others.
#[tokio::test]
async fn lines_about_clients_that_are_not_let_in_are_bounded() {
    let log = Log::installed();
    let ca = Ca::new();
    let server = serve(&Secret::new(&ca.server(), &ca)).await;
    let before = log.lines("reason=\"hung-up\"").len();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(server.tcp).await.expect("connects");
        stream.write_all(&[22]).await.expect("sent");
    }
    let mut failed = server.observer.handshakes.subscribe();
    soon(failed.wait_for(|failed| failed.len() == 30))
        .await
        .expect("told");
    assert_eq!(log.lines("reason=\"hung-up\"").len() - before, 10);
}

/// When a connection ends that the server ends: the client hears it, and no more is written.
async fn ends(server: &Server, mut client: Native) {
    crate::hostile::connections(server, 0).await;
    let request = native::CreateGpuRequest {
        gpu: Some(native_gpu("late")),
    };
    soon(client.create_gpu(request)).await.expect_err("ended");
    assert!(!server.store.is_there("late"));
}

#[tokio::test]
async fn p4_a_certificate_that_runs_out_ends_its_connection_and_is_not_resumed() {
    let ca = Ca::new();
    let server = serve(&Secret::new(&ca.server(), &ca)).await;
    let until = SystemTime::now() + Duration::from_secs(3);
    // What a client keeps for a resumption, it keeps in its configuration.
    let config = client(&ca, Some(&ca.agent_until(until)));
    let mut first = Native::new(connect(&server, config.clone()).await.expect("connects"));
    created(&mut first, "gpu-0").await;
    let again = {
        let name = ServerName::try_from("localhost").expect("a name");
        let tcp = TcpStream::connect(server.tcp).await.expect("connects");
        let connector = TlsConnector::from(Arc::new(config.clone()));
        connector.connect(name, tcp).await.expect("shakes hands")
    };
    let kind = again.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Full), "nothing is resumed");
    drop(again);
    ends(&server, first).await;
    assert!(SystemTime::now() + Duration::from_secs(1) >= until);
    is_refused(&server, config).await;
}

#[tokio::test]
async fn p4_a_ca_that_is_no_longer_trusted_takes_its_clients_along() {
    let (old, new) = (Ca::new(), Ca::new());
    let cert = old.server();
    let mut secret = Secret::new(&cert, &old);
    let server = serve(&secret).await;
    let mut before = native(&server, &old, &old.agent()).await;
    created(&mut before, "gpu-0").await;
    let both = format!("{}{}", old.pem(), new.pem());
    secret.swap(&cert.cert, &cert.key, &both);
    reloads(&server, &[true]).await;
    created(&mut before, "gpu-1").await;
    secret.swap(&cert.cert, &cert.key, &new.pem());
    ends(&server, before).await;
}

#[tokio::test]
async fn changed_certificates_are_used_and_broken_ones_are_not() {
    let (old, new) = (Ca::new(), Ca::new());
    let mut secret = Secret::new(&old.server(), &old);
    let server = serve(&secret).await;
    let mut before = native(&server, &old, &old.agent()).await;
    created(&mut before, "gpu-0").await;

    let next = new.server();
    secret.swap(&next.cert, &next.key, &new.pem());
    reloads(&server, &[true]).await;
    let mut after = native(&server, &new, &new.agent()).await;
    created(&mut after, "gpu-1").await;
    is_refused(&server, client(&new, Some(&old.agent()))).await;
    created(&mut after, "gpu-2").await;

    secret.swap(&old.server().cert, &next.key, &new.pem());
    reloads(&server, &[true, false]).await;
    let mut still = native(&server, &new, &new.agent()).await;
    created(&mut still, "gpu-3").await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_with_their_flag() {
    let ca = Ca::new();
    let mut secret = Secret::new(&ca.server(), &ca);
    let (good, other, authority) = (ca.server(), ca.server(), ca.pem());
    let config = |secret: &Secret| GrpcConfig {
        tcp: Some(([127, 0, 0, 1], 0).into()),
        tls: Some(secret.files()),
        ..GrpcConfig::default()
    };
    let check = async |secret: &Secret, says: &[&str]| {
        let error = bind(&config(secret))
            .await
            .expect_err("refused")
            .to_string();
        assert!(says.iter().all(|word| error.contains(word)), "{error}");
    };
    for (cert, key, ca, says) in [
        (
            "",
            &*good.key,
            &*authority,
            &["--tls-cert", "tls.crt", "no certificate"][..],
        ),
        (
            &good.cert,
            "no key",
            &authority,
            &["--tls-key", "tls.key", "no private key"],
        ),
        (
            &good.cert,
            &good.key,
            "",
            &["--tls-client-ca", "ca.crt", "no certificate"],
        ),
        (
            &good.cert,
            &other.key,
            &authority,
            &["--tls-cert", "--tls-key", "that certificate"],
        ),
    ] {
        secret.swap(cert, key, ca);
        check(&secret, says).await;
    }
    fs::remove_file(secret.path("tls.key")).expect("removed");
    check(&secret, &["--tls-key", "tls.key", "can't be read"]).await;
}

#[tokio::test]
async fn p4_plain_tcp_reaches_no_farther_and_writes_no_more_than_was_said() {
    let wide = GrpcConfig {
        tcp: Some(([0, 0, 0, 0], 0).into()),
        ..GrpcConfig::default()
    };
    let error = bind(&wide).await.expect_err("refused");
    assert!(matches!(error, BindError::WideWithoutTls { .. }), "{error}");
    let plain_tcp = PlainTcp::Read;
    let bound = bind(&GrpcConfig { plain_tcp, ..wide }).await;
    bound.expect("it was said");

    let server = Server::start_with(|config| config.plain_tcp = PlainTcp::Write).await;
    created(&mut Native::new(server.tcp().await), "gpu-0").await;
    let state = server.store.state();
    assert_eq!(
        state
            .connections
            .keys()
            .map(|name| &**name)
            .collect::<Vec<_>>(),
        ["tcp:127.0.0.1"]
    );
}

/// Who writes is known when the hands are shaken; until then nobody tells it from a reader.
#[tokio::test]
async fn p4_a_writer_gets_in_where_readers_have_taken_all_that_they_may() {
    let ca = Ca::new();
    let secret = Secret::new(&ca.server(), &ca);
    let server = Server::start_with(|config| {
        config.tls = Some(secret.files());
        config.writers_tcp = vec!["cn:agent".into()];
        Arc::make_mut(&mut config.bounds).connections = 32;
    })
    .await;
    let mut held = Vec::new();
    for (name, connections) in [("a", 16), ("b", 12)] {
        let reader = ca.issue(name, Vec::new());
        for _ in 0..connections {
            let mut reader = native(&server, &ca, &reader).await;
            let list = native::ListGpusRequest::default();
            reader.list_gpus(list).await.expect("served");
            held.push(reader);
        }
        // Its half, or the reserve: there is no more for it, nor for another reader.
        let config = client(&ca, Some(&ca.issue(name, Vec::new())));
        is_refused(&server, config).await;
    }
    is_refused(&server, client(&ca, Some(&ca.issue("c", Vec::new())))).await;
    let turned_away = server.observer.turned_away.borrow().clone();
    assert_eq!(turned_away[0], "share-full", "{turned_away:?}");
    let rest = &turned_away[1..];
    assert!(
        !rest.is_empty() && rest.iter().all(|why| *why == "full"),
        "{rest:?}"
    );
    created(&mut native(&server, &ca, &ca.agent()).await, "gpu-0").await;
}
