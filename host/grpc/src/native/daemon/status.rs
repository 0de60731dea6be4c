//! GetDaemonStatus.

use std::sync::Arc;

use device_api_core::daemon::{DaemonControl, DaemonStatus, Part, PartState};
use device_api_proto::native as proto;

use super::log::shown;
use crate::conn::ConnInfo;
use crate::fields::timestamp;
use crate::peer::Access;
use crate::status::Refusal;

pub(super) async fn get(
    daemon: &dyn DaemonControl,
    caller: Option<Arc<ConnInfo>>,
) -> Result<proto::GetDaemonStatusResponse, Refusal> {
    let mut answer = told(daemon.status());
    if let Some(caller) = caller {
        answer.caller = caller.identity.to_string();
        answer.read_only = match &caller.access {
            Access::Write => String::new(),
            Access::Read { why, .. } => why.clone(),
        };
    }
    Ok(answer)
}

fn told(status: DaemonStatus) -> proto::GetDaemonStatusResponse {
    proto::GetDaemonStatusResponse {
        version: status.version.to_owned(),
        time: timestamp(status.now),
        started: timestamp(status.started),
        boot_id: status.boot.to_string(),
        uid: status.uid,
        gid: status.gid,
        ready: status.ready,
        waiting: status.waiting.into_iter().map(str::to_owned).collect(),
        parts: status.parts.into_iter().map(part).collect(),
        state_dir: status.state_dir.unwrap_or_default(),
        kernel_log: status.kernel_log.unwrap_or_default(),
        certificate_expires: status.certificate_expires.and_then(timestamp),
        log: Some(shown(status.log)),
        caller: String::new(),
        read_only: String::new(),
    }
}

fn part(part: Part) -> proto::DaemonPart {
    let state = match part.state {
        PartState::Off => proto::DaemonPartState::Off,
        PartState::Up => proto::DaemonPartState::Up,
        PartState::Degraded => proto::DaemonPartState::Degraded,
    };
    proto::DaemonPart {
        name: part.name.to_owned(),
        state: state.into(),
        detail: part.detail,
    }
}
