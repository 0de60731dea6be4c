//! How TLS is, told to metrics and `/readyz`.

use std::time::{Duration, SystemTime};

use device_api_grpc::TlsHealth;

use crate::metrics::Metrics;
use crate::readiness::{PartState, Readiness};

/// Has both ask whenever they are asked. (The log hears of a change from the API itself.)
pub(crate) fn watch(tls: TlsHealth, metrics: &Metrics, readiness: &Readiness) {
    let scraped = tls.clone();
    metrics.before_scrape(move |metrics| metrics.tls_good(scraped.begins(), scraped.expires()));
    readiness.asked("tls", move || {
        let left = tls.expires().duration_since(SystemTime::now());
        report(tls.failure().as_deref(), left.ok())
    });
}

/// `left`: how long the certificate is still good for; `None`: it has run out.
fn report(failure: Option<&str>, left: Option<Duration>) -> (PartState, String) {
    let certificate = match left {
        Some(left) => format!("the certificate is good for {} h", left.as_secs() / 3600),
        None => "the certificate has run out; give a new one".to_owned(),
    };
    match (failure, left) {
        (Some(why), _) => (
            PartState::Degraded,
            format!(
                "the files have changed and can't be used: {why}; still using the old ones, of which {certificate}"
            ),
        ),
        (None, Some(_)) => (PartState::Up, certificate),
        (None, None) => (PartState::Degraded, certificate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_tls_is_told_and_holds_nothing_up() {
        #[track_caller]
        fn check(failure: Option<&str>, hours: Option<u64>, state: PartState, says: &str) {
            let left = hours.map(Duration::from_hours);
            let (got, detail) = report(failure, left);
            assert_eq!(got, state);
            assert!(detail.contains(says), "{detail}");
        }
        check(None, Some(7), PartState::Up, "good for 7 h");
        check(None, None, PartState::Degraded, "run out");
        check(Some("no key"), Some(7), PartState::Degraded, "no key");
    }
}
