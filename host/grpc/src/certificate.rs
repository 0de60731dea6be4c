//! What a certificate says.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer as _, Validity, X509Certificate};

/// Names taken from one certificate; the largest public ones have a hundred.
const NAMES_MAX: usize = 256;

/// When a certificate runs out; the epoch where that can't be read.
pub(crate) fn expires(certificate: &CertificateDer<'_>) -> SystemTime {
    at(certificate, |validity| validity.not_after)
}

/// From when on a certificate is good; the epoch where that can't be read.
pub(crate) fn begins(certificate: &CertificateDer<'_>) -> SystemTime {
    at(certificate, |validity| validity.not_before)
}

fn at(certificate: &CertificateDer<'_>, end: fn(&Validity) -> ASN1Time) -> SystemTime {
    let seconds = X509Certificate::from_der(certificate)
        .ok()
        .and_then(|(_, parsed)| u64::try_from(end(parsed.validity()).timestamp()).ok());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or_default())
}

/// Who a verified certificate says its holder is: URIs first, as they say the most, then DNS names,
/// then common names.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<Arc<str>> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let alternative = alternative.map_or(&[][..], |extension| &extension.value.general_names);
    let uris = alternative.iter().filter_map(|name| {
        let GeneralName::URI(uri) = name else {
            return None;
        };
        Some(format!("uri:{uri}"))
    });
    let hosts = alternative.iter().filter_map(|name| {
        let GeneralName::DNSName(host) = name else {
            return None;
        };
        Some(format!("dns:{host}"))
    });
    let common = parsed.subject().iter_common_name();
    let common = common.filter_map(|name| Some(format!("cn:{}", name.as_str().ok()?)));
    uris.chain(hosts)
        .chain(common)
        .take(NAMES_MAX)
        .map(Arc::from)
        .collect()
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
