//! Who connects, who is refused, and TLS.

use std::time::{SystemTime, UNIX_EPOCH};

use device_api_grpc::{HandshakeFailure, RefusalReason, Turned};
use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::{Maker, Metrics, advance, catalog, gauge};

/// What comes of changed files of TLS.
const RELOADS: [&str; 2] = ["used", "broken"];

#[derive(Debug)]
pub(super) struct Access {
    connections: IntGauge,
    sockets_lost: IntGauge,
    sockets_bound: IntCounter,
    turned_away: IntCounterVec,
    refusals: IntCounterVec,
    suppressed: IntCounter,
    handshakes: IntCounterVec,
    reloads: IntCounterVec,
    begins: IntGauge,
    expires: IntGauge,
}

impl Access {
    pub(super) fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            connections: make.gauge(&catalog::CONNECTIONS)?,
            sockets_lost: make.gauge(&catalog::SOCKETS_LOST)?,
            sockets_bound: make.counter(&catalog::SOCKETS_BOUND)?,
            turned_away: make.counters(&catalog::TURNED_AWAY)?,
            refusals: make.counters(&catalog::REFUSALS)?,
            suppressed: make.counter(&catalog::AUDIT_SUPPRESSED)?,
            handshakes: make.counters(&catalog::TLS_HANDSHAKES)?,
            reloads: make.counters(&catalog::TLS_RELOADS)?,
            begins: make.gauge(&catalog::TLS_BEGINS)?,
            expires: make.gauge(&catalog::TLS_EXPIRES)?,
        })
    }

    pub(super) fn begin_closed_sets(&self) {
        for reason in RefusalReason::ALL {
            self.refusals.with_label_values(&[reason.as_str()]);
        }
        for why in Turned::ALL {
            self.turned_away.with_label_values(&[why.as_str()]);
        }
        for why in HandshakeFailure::ALL {
            self.handshakes.with_label_values(&[why.as_str()]);
        }
        for result in RELOADS {
            self.reloads.with_label_values(&[result]);
        }
    }

    pub(super) fn connections(&self, delta: i64) {
        self.connections.add(delta);
    }

    pub(super) fn turned_away(&self, why: &str) {
        self.turned_away.with_label_values(&[why]).inc();
    }

    pub(super) fn refused(&self, reason: &str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    pub(super) fn suppressed(&self) {
        self.suppressed.inc();
    }

    pub(super) fn handshake_failed(&self, why: &str) {
        self.handshakes.with_label_values(&[why]).inc();
    }

    pub(super) fn tls_reloaded(&self, used: bool) {
        let [good, broken] = RELOADS;
        let result = if used { good } else { broken };
        self.reloads.with_label_values(&[result]).inc();
    }
}

impl Metrics {
    /// How the Unix sockets are: those that nobody reaches, and how often one was bound anew since the start.
    pub(crate) fn sockets(&self, lost: usize, bound_anew: u64) {
        self.access.sockets_lost.set(gauge(lost));
        advance(&self.access.sockets_bound, bound_anew);
    }

    /// From when on, and until when, the certificate in use is good.
    pub(crate) fn tls_good(&self, begins: SystemTime, expires: SystemTime) {
        let seconds = |at: SystemTime| {
            let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            i64::try_from(seconds).unwrap_or(i64::MAX)
        };
        self.access.begins.set(seconds(begins));
        self.access.expires.set(seconds(expires));
    }
}
