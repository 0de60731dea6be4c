use super::*;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};

fn certificate(common: &[&str], alternatives: Vec<SanType>) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name = rcgen::DistinguishedName::new();
    for name in common {
        params.distinguished_name.push(DnType::CommonName, *name);
    }
    params.subject_alt_names = alternatives;
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("signed").der().clone()
}

#[test]
fn p4_a_certificate_says_uris_then_hosts_then_common_names() {
    #[track_caller]
    fn check(certificate: &CertificateDer<'_>, expected: &[&str]) {
        let names = names(certificate);
        assert_eq!(
            names.iter().map(|name| &**name).collect::<Vec<_>>(),
            expected
        );
    }
    let host = SanType::DnsName("a.example".try_into().expect("a host"));
    let uri = SanType::URI("spiffe://d/a".try_into().expect("a URI"));
    let address = SanType::IpAddress([127, 0, 0, 1].into());
    check(
        &certificate(&["agent"], vec![host, address, uri]),
        &["uri:spiffe://d/a", "dns:a.example", "cn:agent"],
    );
    check(&certificate(&[], Vec::new()), &[]);
    check(&CertificateDer::from(vec![1, 2, 3]), &[]);
}

#[test]
fn when_a_certificate_is_good_is_read() {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2031, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let signed = params.self_signed(&key).expect("signed");
    let seconds = |at: SystemTime| {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        since.expect("after 1970").as_secs()
    };
    assert_eq!(seconds(begins(signed.der())), 978_307_200);
    assert_eq!(seconds(expires(signed.der())), 1_924_992_000);
}
