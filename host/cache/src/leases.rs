//! Who the providers are, and which of them still live (design P2).

use std::collections::HashMap;
use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::error::ApiError;
use device_api_core::limits;
use device_api_core::provider::{Caller, Lease};

#[derive(Debug)]
struct Held {
    lease: Lease,
    ends: BootTime,
}

/// Registered providers by name.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: HashMap<Arc<str>, Held>,
}

impl Leases {
    /// Registers a provider, or takes up its registration again with a new lease.
    pub(crate) fn register(&mut self, wanted: Lease, now: BootTime) -> Result<Lease, ApiError> {
        if !self.held.contains_key(&wanted.provider) && self.held.len() >= limits::PROVIDERS_MAX {
            return Err(ApiError::Exhausted {
                limit: "PROVIDERS_MAX",
                max: limits::PROVIDERS_MAX,
            });
        }
        let duration = wanted.duration.clamp(limits::LEASE_MIN, limits::LEASE_MAX);
        let lease = Lease {
            duration,
            id: uuid::Uuid::new_v4().to_string().into(),
            ..wanted
        };
        self.held.insert(
            lease.provider.clone(),
            Held {
                lease: lease.clone(),
                ends: now.after(duration),
            },
        );
        Ok(lease)
    }

    pub(crate) fn renew(&mut self, lease_id: &str, now: BootTime) -> Result<Lease, ApiError> {
        let held = self
            .held
            .values_mut()
            .find(|held| &*held.lease.id == lease_id)
            .ok_or_else(unknown_lease)?;
        held.ends = now.after(held.lease.duration);
        Ok(held.lease.clone())
    }

    pub(crate) fn caller(&self, lease_id: &str) -> Result<Caller, ApiError> {
        let held = self
            .held
            .values()
            .find(|held| &*held.lease.id == lease_id)
            .ok_or_else(unknown_lease)?;
        Ok(Caller {
            provider: held.lease.provider.clone(),
        })
    }

    /// Takes the providers whose lease has run out.
    pub(crate) fn expire(&mut self, now: BootTime) -> Vec<Arc<str>> {
        self.held
            .extract_if(|_, held| held.ends <= now)
            .map(|(provider, _)| provider)
            .collect()
    }
}

fn unknown_lease() -> ApiError {
    ApiError::Forbidden {
        why: "lease_id is unknown or has run out; call RegisterProvider again".to_owned(),
    }
}
