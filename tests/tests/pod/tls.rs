//! TLS in the pod: a Secret that its group alone may read, and clients that show a certificate.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use device_api_tests::Native;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tonic::transport::{Channel, Endpoint};

use crate::container::Container;
use crate::release::Release;

const VALUES: &str = "
grpc: {address: '0.0.0.0:50051'}
tls:
  enabled: true
  secretName: device-api-tls
";
const PORT: u16 = 50051;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Result<Ca> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate for that purpose, and its key.
fn issued(ca: &Ca, purpose: ExtendedKeyUsagePurpose) -> Result<(rcgen::Certificate, KeyPair)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.extended_key_usages = vec![purpose];
    Ok((params.signed_by(&key, ca)?, key))
}

async fn channel(running: &Container, config: ClientConfig) -> Result<Channel> {
    let tcp = running.connect(PORT)?;
    tcp.set_nonblocking(true)?;
    let name = ServerName::try_from("localhost")?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, TcpStream::from_std(tcp)?).await?;
    let mut stream = Some(TokioIo::new(stream));
    let connect = tower::service_fn(move |_: http::Uri| {
        let once = stream.take().ok_or_else(|| std::io::Error::other("once"));
        async move { once }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    Ok(endpoint.connect_with_connector(connect).await?)
}

#[tokio::test]
async fn the_key_is_read_by_the_group_and_clients_are_asked_who_they_are() -> Result<()> {
    let ca = authority()?;
    let (cert, key) = issued(&ca, ExtendedKeyUsagePurpose::ServerAuth)?;
    let Some(mut release) = Release::install(VALUES)? else {
        return Ok(());
    };
    let files = [
        ("tls.crt", cert.pem()),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", ca.pem()),
    ];
    let files = files.each_ref().map(|(name, pem)| (*name, pem.as_bytes()));
    release.machine.config_map("device-api-tls", &files)?;

    // Without the group the key is root's alone.
    let mut without = release.pod.clone();
    let context = without["securityContext"].as_object_mut();
    let group = context.context("no context")?.remove("fsGroup");
    ensure!(group == Some(Value::from(65534)), "{group:?}");
    for init in crate::manifest::list(&without, "initContainers") {
        let (status, said) = release.machine.start(&without, init)?.end()?;
        ensure!(status.success(), "{status}\n{said}");
    }
    let container = release.container().clone();
    let (status, said) = release.machine.start(&without, &container)?.end()?;
    ensure!(!status.success() && said.contains("tls.key"), "{said}");

    let running = release.started().await?;
    release.healthy().await?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let provider = Arc::new(crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_root_certificates(roots);
    let (cert, key) = issued(&ca, ExtendedKeyUsagePurpose::ClientAuth)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let known = config
        .clone()
        .with_client_auth_cert(vec![cert.der().clone()], key.into())?;
    for (mut config, is_known) in [(known, true), (config.with_no_client_auth(), false)] {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listed = match channel(&running, config).await {
            Ok(channel) => Native::over(channel).list().await,
            // Of TLS 1.3 it hears so when it first reads, or at once.
            Err(error) => Err(error),
        };
        let gpus = listed.as_ref().map(|list| list.gpus.len()).ok();
        ensure!(gpus == is_known.then_some(8), "{is_known}: {listed:?}");
    }
    Ok(())
}
