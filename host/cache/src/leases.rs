//! Who the providers are, and which of them still live (design P2): those that hold a lease, and those
//! whose connection is the lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::BootTime;
use device_api_core::durable::LeaseRecord;
use device_api_core::error::ApiError;
use device_api_core::provider::{Lease, Registration};

use device_api_core::limits::{LEASE_MAX, LEASE_MIN};

/// Registered providers by name, and connections by identity.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: HashMap<Arc<str>, LeaseRecord>,
    connected: HashMap<Arc<str>, Connected>,
}

/// An identity whose connections are its lease.
#[derive(Debug)]
struct Connected {
    timeout: Duration,
    connections: usize,
    /// When its conditions are lost; `None` while it is connected, and once they are.
    ends: Option<BootTime>,
}

/// What of a lease concerns its holder.
pub(crate) fn lease_of(held: &LeaseRecord) -> Lease {
    Lease {
        provider: held.provider.clone(),
        identity: held.identity.clone(),
        duration: held.duration,
        id: held.id.clone(),
        rewrite: false,
    }
}

impl Leases {
    /// Leases of an earlier run, and the identities whose connections count. Those that own something
    /// have as long to come back as they may be away.
    pub(crate) fn restored(
        held: Vec<LeaseRecord>,
        connected: &[(Arc<str>, Duration)],
        owns: impl Fn(&str) -> bool,
        now: BootTime,
    ) -> Self {
        // While the daemon was away nobody could renew, and an earlier boot's time says nothing.
        let held = held.into_iter().map(|lease| {
            let ends = now.after(lease.duration);
            (lease.provider.clone(), LeaseRecord { ends, ..lease })
        });
        let connected = connected.iter().map(|(identity, timeout)| {
            let away = Connected {
                timeout: *timeout,
                connections: 0,
                ends: owns(identity).then(|| now.after(*timeout)),
            };
            (identity.clone(), away)
        });
        Self {
            held: held.collect(),
            connected: connected.collect(),
        }
    }

    /// Registers a provider, or takes up its registration again with a new lease.
    pub(crate) fn register(
        &mut self,
        wanted: Registration,
        now: BootTime,
        providers_max: usize,
    ) -> Result<LeaseRecord, ApiError> {
        match self.held.get(&wanted.provider) {
            Some(held) if held.identity != wanted.identity => {
                return Err(ApiError::Forbidden {
                    why: format!(
                        "provider {:?} is registered by {}, and its lease runs; use another name, or have the provider forgotten",
                        held.provider, held.identity
                    ),
                });
            }
            None if self.held.len() >= providers_max => {
                return Err(ApiError::Exhausted {
                    limit: "providers",
                    max: providers_max,
                });
            }
            Some(_) | None => {}
        }
        let duration = wanted.duration.clamp(LEASE_MIN, LEASE_MAX);
        let lease = LeaseRecord {
            provider: wanted.provider,
            identity: wanted.identity,
            id: uuid::Uuid::new_v4().to_string().into(),
            duration,
            ends: now.after(duration),
        };
        self.held.insert(lease.provider.clone(), lease.clone());
        Ok(lease)
    }

    pub(crate) fn renew(&mut self, lease_id: &str, now: BootTime) -> Result<LeaseRecord, ApiError> {
        let held = self
            .held
            .values_mut()
            .find(|held| &*held.id == lease_id)
            .ok_or_else(unknown_lease)?;
        held.ends = now.after(held.duration);
        Ok(held.clone())
    }

    pub(crate) fn provider_of(&self, lease_id: &str) -> Result<Arc<str>, ApiError> {
        let held = self.held.values().find(|held| &*held.id == lease_id);
        held.map(|held| held.provider.clone())
            .ok_or_else(unknown_lease)
    }

    /// The leases that run: who holds them, and until when.
    pub(crate) fn held(&self) -> impl Iterator<Item = &LeaseRecord> {
        self.held.values()
    }

    pub(crate) fn end(&mut self, provider: &str) -> bool {
        self.held.remove(provider).is_some()
    }

    /// Whether a lease has run out, or a connection has been away too long.
    pub(crate) fn is_due(&self, now: BootTime) -> bool {
        self.held.values().any(|held| held.ends <= now)
            || self
                .connected
                .values()
                .any(|away| away.ends.is_some_and(|ends| ends <= now))
    }

    /// Takes the providers whose lease has run out, or whose last connection has been away too long.
    pub(crate) fn expire(&mut self, now: BootTime) -> Vec<Arc<str>> {
        let held = self.held.extract_if(|_, held| held.ends <= now);
        let mut lost: Vec<Arc<str>> = held.map(|(provider, _)| provider).collect();
        for (identity, connected) in &mut self.connected {
            if connected.ends.is_some_and(|ends| ends <= now) {
                connected.ends = None;
                lost.push(identity.clone());
            }
        }
        lost
    }

    pub(crate) fn connected(&mut self, identity: &str) {
        if let Some(connected) = self.connected.get_mut(identity) {
            connected.connections += 1;
            connected.ends = None;
        }
    }

    pub(crate) fn disconnected(&mut self, identity: &str, now: BootTime) {
        if let Some(connected) = self.connected.get_mut(identity) {
            connected.connections = connected.connections.saturating_sub(1);
            if connected.connections == 0 {
                connected.ends = Some(now.after(connected.timeout));
            }
        }
    }
}

fn unknown_lease() -> ApiError {
    ApiError::Forbidden {
        why: "lease_id is unknown or has run out; call RegisterProvider again".to_owned(),
    }
}
