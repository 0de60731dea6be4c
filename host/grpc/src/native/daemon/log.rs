//! SetLogFilter and ResetLogFilter.

use std::time::Duration;

use device_api_core::daemon::{DaemonControl, LogChange, LogFilter};
use device_api_core::limits::{LOG_FILTER_BYTES_MAX, LOG_FILTER_TTL_MAX};
use device_api_proto::native as proto;

use crate::fields::{FieldError, bounded, span, timestamp};
use crate::status::Refusal;

pub(super) async fn set(
    daemon: &dyn DaemonControl,
    request: proto::SetLogFilterRequest,
) -> Result<proto::SetLogFilterResponse, Refusal> {
    if request.filter.trim().is_empty() {
        return Err(FieldError::required("filter").into());
    }
    bounded("filter", &request.filter, LOG_FILTER_BYTES_MAX)?;
    let change = LogChange {
        ttl: request.ttl.map(ttl).transpose()?,
        filter: request.filter,
    };
    let log = Some(shown(daemon.set_log(change)?));
    Ok(proto::SetLogFilterResponse { log })
}

pub(super) async fn reset(
    daemon: &dyn DaemonControl,
    _request: proto::ResetLogFilterRequest,
) -> Result<proto::ResetLogFilterResponse, Refusal> {
    let log = Some(shown(daemon.reset_log()?));
    Ok(proto::ResetLogFilterResponse { log })
}

pub(super) fn shown(log: LogFilter) -> proto::LogFilter {
    proto::LogFilter {
        filter: log.filter,
        at_start: log.at_start,
        is_set: log.is_set,
        until: log.until.and_then(timestamp),
    }
}

fn ttl(asked: prost_types::Duration) -> Result<Duration, FieldError> {
    span(asked)
        .filter(|ttl| !ttl.is_zero() && *ttl <= LOG_FILTER_TTL_MAX)
        .ok_or_else(|| {
            let hours = LOG_FILTER_TTL_MAX.as_secs() / 3600;
            FieldError::new(
                "ttl",
                format!("out of range; more than 0, at most {hours} h"),
            )
        })
}
