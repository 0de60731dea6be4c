//! WatchGpus.

use device_api_core::watch::{Event, Scope, WatchFrom};
use device_api_proto::upstream as proto;

use super::{convert, write};
use crate::status::Refusal;

pub(super) fn parse(request: proto::WatchGpusRequest) -> Result<(Scope, WatchFrom), Refusal> {
    let version = write::version(
        "opts.resource_version",
        &request.opts.unwrap_or_default().resource_version,
    )?;
    Ok((
        Scope::from_wire(&request.namespace),
        version.map_or(WatchFrom::Now, WatchFrom::After),
    ))
}

/// This dialect's `ERROR` is never sent: errors are gRPC's own.
pub(super) fn encode(event: &Event) -> proto::WatchGpusResponse {
    proto::WatchGpusResponse {
        r#type: event.type_.as_str().to_owned(),
        object: Some(convert::gpu(&event.gpu)),
    }
}
