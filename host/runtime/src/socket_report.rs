//! How the Unix sockets are, told to metrics and `/readyz`.

use device_api_grpc::SocketsHealth;

use crate::metrics::Metrics;
use crate::readiness::{PartState, Readiness};

/// Has both ask whenever they are asked. (The log hears of a change from the API itself.)
pub(crate) fn watch(sockets: SocketsHealth, metrics: &Metrics, readiness: &Readiness) {
    let scraped = sockets.clone();
    metrics.before_scrape(move |metrics| {
        metrics.sockets(scraped.lost().len(), scraped.bound_anew());
    });
    // It holds nothing up: who comes over TCP is served, and no restart takes the file of another away.
    readiness.asked("sockets", move || {
        let lost = sockets.lost();
        if lost.is_empty() {
            let listening = format!("{} listening", sockets.count());
            return (PartState::Up, listening);
        }
        let lost = lost.into_iter();
        let lost = lost.map(|(path, why)| format!("nobody reaches {}: {why}", path.display()));
        let lost = lost.collect::<Vec<_>>().join("; ");
        (PartState::Degraded, format!("{lost}; tried again"))
    });
}
