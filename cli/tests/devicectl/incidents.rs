//! The faults of the small daemon, and `devicectl incidents|gpu clear|gpu report-reset` against them.

use std::sync::{Arc, Mutex};

use device_api_proto::native::server::incident_service_server::IncidentService;
use device_api_proto::native::server::{ClearConditionResponse, ReportResetResponse};
use device_api_proto::native::{
    ClearConditionRequest, Health, Incident, IncidentState, ListIncidentsRequest,
    ListIncidentsResponse, ReportResetRequest,
};
use tonic::{Request, Response, Status, async_trait};

use crate::daemon::start;
use crate::{answer, gpu};

/// Incidents in one answer.
const PAGE: usize = 2;

/// Has five incidents of one GPU, of which the first two are closed, and keeps what it was told to clear, or was reset.
#[derive(Clone, Default)]
pub(crate) struct Incidents {
    told: Arc<Mutex<Vec<String>>>,
}

fn all() -> Vec<Incident> {
    let state = |id| match id {
        1 | 2 => IncidentState::Closed,
        _ => IncidentState::Open,
    };
    let one = |id| Incident {
        id,
        device: "GPU-1".to_owned(),
        kind: "xid".to_owned(),
        code: Some(13),
        count: id,
        state: state(id).into(),
        closed_by: "quiet".to_owned(),
        ..Incident::default()
    };
    (1..=5).rev().map(one).collect()
}

#[async_trait]
impl IncidentService for Incidents {
    async fn list_incidents(
        &self,
        request: Request<ListIncidentsRequest>,
    ) -> Result<Response<ListIncidentsResponse>, Status> {
        let request = request.into_inner();
        let is_wanted = |one: &Incident| {
            (request.device.is_empty() || request.device == one.device)
                && (request.state == 0 || request.state == one.state)
                && (request.before == 0 || one.id < request.before)
        };
        let mut incidents: Vec<_> = all().into_iter().filter(is_wanted).collect();
        let left_out = incidents.len().saturating_sub(PAGE);
        incidents.truncate(PAGE);
        Ok(Response::new(ListIncidentsResponse {
            incidents,
            left_out: left_out as u64,
        }))
    }

    async fn clear_condition(
        &self,
        request: Request<ClearConditionRequest>,
    ) -> Result<Response<ClearConditionResponse>, Status> {
        let request = request.into_inner();
        let ClearConditionRequest {
            name,
            namespace,
            condition_type,
            reason,
        } = request;
        let told = format!("{namespace}/{name} {condition_type}: {reason}");
        self.told.lock().unwrap().push(told);
        // It was deleted meanwhile.
        Ok(Response::new(ClearConditionResponse { gpu: None }))
    }

    async fn report_reset(
        &self,
        request: Request<ReportResetRequest>,
    ) -> Result<Response<ReportResetResponse>, Status> {
        let request = request.into_inner();
        let ReportResetRequest {
            name,
            namespace,
            reason,
            lease_id,
        } = request;
        let told = format!("{namespace}/{name} was reset: {reason}{lease_id}");
        self.told.lock().unwrap().push(told);
        Ok(Response::new(ReportResetResponse { gpu: None }))
    }
}

impl Incidents {
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

#[test]
fn n5_all_incidents_are_read_however_many_answers_that_takes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _running = start(&socket, &[gpu("GPU-1", 3, Health::Healthy)], 3, 1);
    let ids = |args: &[&str]| {
        let (code, out, err) = answer(&socket, &[&["incidents", "-o", "json"], args].concat());
        assert_eq!(code, Some(0), "{err}");
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        let all = told["incidents"].as_array().unwrap().iter();
        let ids: Vec<_> = all.map(|one| one["id"].as_u64().unwrap()).collect();
        ids
    };
    assert_eq!(ids(&[]), [5, 4, 3]);
    assert_eq!(ids(&["--all", "--gpu", "GPU-1"]), [5, 4, 3, 2, 1]);
    let (code, out, _) = answer(&socket, &["incidents"]);
    assert_eq!((code, out.lines().count()), (Some(0), 4), "{out}");
    let (code, _, err) = answer(&socket, &["incidents", "--gpu", "GPU-9"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("GPU \"GPU-9\" not found; there are GPU-1"),
        "{err}"
    );
}

#[test]
fn n7_a_clear_names_the_gpu_the_condition_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let running = start(&socket, &[gpu("GPU-1", 3, Health::Healthy)], 3, 1);
    let clear = [
        "gpu",
        "clear",
        "GPU-1",
        "XidCriticalError",
        "--reason",
        "it is over",
    ];
    let (code, out, err) = answer(&socket, &clear);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.starts_with("XidCriticalError of GPU-1 is cleared.\n"),
        "{out}"
    );
    let told = running.incidents().told();
    assert_eq!(told, ["default/GPU-1 XidCriticalError: it is over"]);
}

#[test]
fn n7_a_report_of_a_reset_names_the_gpu_and_how_it_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let running = start(&socket, &[gpu("GPU-1", 3, Health::Healthy)], 3, 1);
    let report = ["gpu", "report-reset", "GPU-1", "--reason", "I did it"];
    let (code, out, err) = answer(&socket, &report);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("That GPU-1 was reset is noted.\n"), "{out}");
    let told = running.incidents().told();
    assert_eq!(told, ["default/GPU-1 was reset: I did it"]);
}
