//! A list of incidents.
//!
//! What it takes to pick those that are wanted is done with the pipeline's lock held, hence no more than that: they
//! are shared, and copied by whoever lists them. One that changes meanwhile is copied for that.

use std::cmp::Reverse;
use std::sync::Arc;

use device_api_core::ids::IncidentId;
use device_api_core::incident::{Incident, Incidents as Listed, Wanted};

use super::Incidents;
use super::record::Record;

/// Those that are wanted, in no order.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(super) incidents: Vec<Arc<Incident>>,
    left_out: usize,
}

impl Selected {
    /// Newest first.
    pub(crate) fn list(mut self) -> Listed {
        let id = |incident: &Arc<Incident>| Reverse(incident.id);
        self.incidents.sort_unstable_by_key(id);
        let listed = self.incidents.into_iter().map(Arc::unwrap_or_clone);
        Listed {
            listed: listed.collect(),
            left_out: self.left_out,
        }
    }
}

impl Incidents {
    /// The newest of those that are wanted. One of which nothing stands may be open for some seconds longer than it
    /// has to be: until the next look for those.
    pub(crate) fn select(&self, wanted: &Wanted) -> Selected {
        let of = |is_open: bool| wanted.open.is_none_or(|open| open == is_open);
        let open = self.open.iter().filter(|_| of(true));
        let closed = self.closed.iter().filter(|_| of(false));
        let all = open
            .map(|(id, record)| (*id, record))
            .chain(closed.map(|record| (record.id(), record)));
        let is_before = |id: IncidentId| wanted.before.is_none_or(|before| id < before);
        // Only where it has to be is an incident itself looked at: there may be thousands.
        let is_its = |record: &Record| wanted.device.is_none() || record.is_wanted(wanted);
        let mut all: Vec<(IncidentId, &Record)> = all
            .filter(|(id, record)| is_before(*id) && is_its(record))
            .collect();
        let left_out = all.len().saturating_sub(wanted.max);
        if left_out > 0 {
            all.select_nth_unstable_by_key(wanted.max, |(id, _)| Reverse(*id));
            all.truncate(wanted.max);
        }
        Selected {
            incidents: all.into_iter().map(|(_, record)| record.share()).collect(),
            left_out,
        }
    }
}
