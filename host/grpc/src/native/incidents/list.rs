//! ListIncidents.

use std::sync::Arc;

use device_api_core::condition::Owner;
use device_api_core::error::ApiError;
use device_api_core::ids::{DeviceUuid, IncidentId};
use device_api_core::incident::{Account, Incident, IncidentState, IncidentVerdict, Wanted};
use device_api_core::limits::{INCIDENTS_LISTED_MAX, NAME_BYTES_MAX};
use device_api_core::ports::Incidents;
use device_api_proto::native as proto;
use tokio::sync::Semaphore;

use crate::fields::{FieldError, bounded, timestamp};
use crate::native::convert;
use crate::status::Refusal;

/// Lists made at once. A list may be some MiB, and whoever asks for them again and again is to have one processor at
/// the most.
const LISTS_AT_ONCE: usize = 1;

/// Makes lists, beside the threads that serve all others.
#[derive(Debug)]
pub(super) struct Lists {
    incidents: Arc<dyn Incidents>,
    turns: Arc<Semaphore>,
}

impl Lists {
    pub(super) fn new(incidents: Arc<dyn Incidents>) -> Self {
        Self {
            incidents,
            turns: Arc::new(Semaphore::new(LISTS_AT_ONCE)),
        }
    }

    pub(super) async fn list(
        &self,
        request: proto::ListIncidentsRequest,
    ) -> Result<proto::ListIncidentsResponse, Refusal> {
        let wanted = wanted(&request)?;
        let not_made = |why: String| ApiError::Unavailable {
            why: format!("the list was not made: {why}"),
        };
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|error| not_made(error.to_string()))?;
        let incidents = Arc::clone(&self.incidents);
        let made = tokio::task::spawn_blocking(move || {
            // Until it is made: who gave up waiting for it does not make room for another.
            let _turn = turn;
            let told = incidents.incidents(&wanted);
            proto::ListIncidentsResponse {
                incidents: told.listed.into_iter().map(incident).collect(),
                left_out: u64::try_from(told.left_out).unwrap_or(u64::MAX),
            }
        });
        Ok(made.await.map_err(|error| not_made(error.to_string()))?)
    }
}

fn wanted(request: &proto::ListIncidentsRequest) -> Result<Wanted, FieldError> {
    // One that no device can have selects nothing.
    bounded("device", &request.device, NAME_BYTES_MAX)?;
    let device = Some(&*request.device).filter(|device| !device.is_empty());
    let open = match proto::IncidentState::try_from(request.state) {
        Ok(proto::IncidentState::Unspecified) => None,
        Ok(proto::IncidentState::Open) => Some(true),
        Ok(proto::IncidentState::Closed) => Some(false),
        Err(_) => {
            let why = format!("{} is not a state; OPEN or CLOSED", request.state);
            return Err(FieldError::new("state", why));
        }
    };
    let max = usize::try_from(request.limit).unwrap_or(usize::MAX);
    Ok(Wanted {
        device: device.map(DeviceUuid::new),
        open,
        before: (request.before != 0).then_some(IncidentId(request.before)),
        max: match max {
            0 => INCIDENTS_LISTED_MAX,
            max => max.min(INCIDENTS_LISTED_MAX),
        },
    })
}

fn incident(incident: Incident) -> proto::Incident {
    let Incident {
        id,
        device,
        kind,
        code,
        root,
        instance,
        first_seen,
        last_seen,
        count,
        drill,
        accounts,
        verdicts,
        state,
    } = incident;
    let (state, closed_time, closed_by) = match state {
        IncidentState::Open => (proto::IncidentState::Open, None, String::new()),
        IncidentState::Closed { at, why } => (proto::IncidentState::Closed, timestamp(at), why),
    };
    proto::Incident {
        id: id.0,
        device: device.to_string(),
        kind: kind.to_string(),
        code,
        root: root.map_or(0, |root| root.0),
        instance: instance.unwrap_or_default(),
        first_seen_time: timestamp(first_seen),
        last_seen_time: timestamp(last_seen),
        count,
        drill,
        accounts: accounts.into_iter().map(account).collect(),
        verdicts: verdicts.into_iter().map(verdict).collect(),
        state: state.into(),
        closed_time,
        closed_by,
    }
}

fn account(account: Account) -> proto::IncidentAccount {
    proto::IncidentAccount {
        source: account.source.to_string(),
        first_seen_time: timestamp(account.first_seen),
        last_seen_time: timestamp(account.last_seen),
        count: account.count,
        evidence: account.evidence,
    }
}

fn verdict(verdict: IncidentVerdict) -> proto::IncidentVerdict {
    proto::IncidentVerdict {
        owner: Some(convert::owner(&Owner::Policy(verdict.policy))),
        condition_type: verdict.condition,
        judgement: verdict.state.to_string(),
        severity: convert::severity(verdict.severity).into(),
        reason: verdict.reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_never_longer_than_its_bound() {
        let max = |limit| {
            let request = proto::ListIncidentsRequest {
                limit,
                ..Default::default()
            };
            wanted(&request).map(|wanted| wanted.max)
        };
        assert_eq!(max(0), Ok(INCIDENTS_LISTED_MAX));
        assert_eq!(max(7), Ok(7));
        assert_eq!(max(u32::MAX), Ok(INCIDENTS_LISTED_MAX));
        assert_eq!(
            wanted(&proto::ListIncidentsRequest::default()),
            Ok(Wanted::newest())
        );
    }
}
