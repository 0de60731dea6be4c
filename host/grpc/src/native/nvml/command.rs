//! ReleaseNvml and AttachNvml.

use std::time::Duration;

use device_api_core::limits::{ATTACH_WAIT_MAX, Bounds, RELEASE_MAX};
use device_api_core::ports::{NvmlControl, NvmlStatus};
use device_api_core::recovery::{DriverHold, Release, ReleaseFor};
use device_api_proto::native as proto;

use super::hung;
use crate::fields::{FieldError, span, timestamp};
use crate::status::Refusal;

pub(super) async fn release(
    nvml: &dyn NvmlControl,
    request: proto::ReleaseNvmlRequest,
) -> Result<proto::ReleaseNvmlResponse, Refusal> {
    let release = Release {
        purpose: purpose(request.purpose)?,
        ttl: ttl(request.ttl)?,
    };
    let (released_until, busy) = match nvml.release(release).await? {
        DriverHold::Released { until } => (timestamp(until), None),
        DriverHold::Busy(call) => (None, Some(hung(call))),
        DriverHold::Attached => (None, None),
    };
    Ok(proto::ReleaseNvmlResponse {
        released_until,
        busy,
    })
}

pub(super) async fn attach(
    nvml: &dyn NvmlControl,
    bounds: &Bounds,
    request: proto::AttachNvmlRequest,
) -> Result<proto::AttachNvmlResponse, Refusal> {
    // Said whether anybody waits for what comes of it, or not.
    let attached = nvml.attach();
    let wait = if request.no_wait {
        Duration::ZERO
    } else {
        attach_wait(bounds)
    };
    match tokio::time::timeout(wait, attached).await {
        Ok(status) => Ok(came_of(status?)),
        Err(_elapsed) => {
            let (status, _) = nvml.status();
            let mut answer = came_of(status);
            if !request.no_wait && answer.state() == proto::NvmlState::Missing {
                let after = format!("not within {wait:?}; {}", answer.detail);
                answer.detail = after;
            }
            Ok(answer)
        }
    }
}

/// Most of the time that there is for a call; the rest is for its answer.
fn attach_wait(bounds: &Bounds) -> Duration {
    ATTACH_WAIT_MAX.min(bounds.request_time * 3 / 4)
}

fn came_of(status: NvmlStatus) -> proto::AttachNvmlResponse {
    let (state, detail) = match status {
        NvmlStatus::Ready { .. } => (proto::NvmlState::Ready, String::new()),
        NvmlStatus::Missing { why } => (proto::NvmlState::Missing, why),
        NvmlStatus::Released { purpose, .. } => {
            let purpose = purpose.as_str();
            let why = format!("it was let go of again meanwhile, for a {purpose}");
            (proto::NvmlState::Released, why)
        }
        NvmlStatus::Disabled => (proto::NvmlState::Disabled, "turned off".to_owned()),
    };
    proto::AttachNvmlResponse {
        state: state.into(),
        detail,
    }
}

fn purpose(wire: i32) -> Result<ReleaseFor, FieldError> {
    use proto::NvmlReleasePurpose as Wire;
    match Wire::try_from(wire) {
        Ok(Wire::Reset) => Ok(ReleaseFor::Reset),
        Ok(Wire::Upgrade) => Ok(ReleaseFor::Upgrade),
        Ok(Wire::Unspecified) => Err(FieldError::new("purpose", "required; RESET or UPGRADE")),
        Err(_) => Err(FieldError::new(
            "purpose",
            format!("{wire} is not a purpose; RESET or UPGRADE"),
        )),
    }
}

fn ttl(asked: Option<prost_types::Duration>) -> Result<Duration, FieldError> {
    let asked = asked.ok_or_else(|| FieldError::required("ttl"))?;
    span(asked)
        .filter(|ttl| !ttl.is_zero() && *ttl <= RELEASE_MAX)
        .ok_or_else(|| {
            let hours = RELEASE_MAX.as_secs() / 3600;
            FieldError::new(
                "ttl",
                format!("out of range; more than 0, at most {hours} h"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n2_an_attach_is_answered_before_its_time_is_over() {
        let mut bounds = Bounds::default();
        assert_eq!(attach_wait(&bounds), ATTACH_WAIT_MAX);
        bounds.request_time = Duration::from_secs(4);
        assert_eq!(attach_wait(&bounds), Duration::from_secs(3));
    }

    #[test]
    fn n2_a_release_is_for_something_and_has_an_end() {
        #[track_caller]
        fn check(seconds: i64, nanos: i32, is_ok: bool) {
            let asked = Some(prost_types::Duration { seconds, nanos });
            assert_eq!(ttl(asked).is_ok(), is_ok, "{seconds} s {nanos} ns");
        }
        check(0, 1, true);
        check(24 * 3600, 0, true);
        check(24 * 3600, 1, false);
        check(0, 0, false);
        check(-1, 0, false);
        check(i64::MIN, i32::MIN, false);
        assert!(ttl(None).is_err());
        assert!(purpose(0).is_err() && purpose(3).is_err());
        assert_eq!(purpose(1), Ok(ReleaseFor::Reset));
        assert_eq!(purpose(2), Ok(ReleaseFor::Upgrade));
    }
}
