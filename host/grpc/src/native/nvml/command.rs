//! ReleaseNvml and AttachNvml.

use std::time::Duration;

use device_api_core::limits::RELEASE_MAX;
use device_api_core::ports::NvmlControl;
use device_api_core::recovery::{DriverHold, Release, ReleaseFor};
use device_api_proto::native as proto;

use super::hung;
use crate::fields::{FieldError, timestamp};
use crate::native::write;
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
    _request: proto::AttachNvmlRequest,
) -> Result<proto::AttachNvmlResponse, Refusal> {
    nvml.attach().await?;
    Ok(proto::AttachNvmlResponse {})
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
    write::span(asked)
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
