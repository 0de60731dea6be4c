//! WatchGpus.

use device_api_core::watch::{Event, EventType, Scope, WatchFrom};
use device_api_proto::native as proto;

use super::{convert, write};
use crate::status::Refusal;

pub(super) fn parse(request: proto::WatchGpusRequest) -> Result<(Scope, WatchFrom), Refusal> {
    let version = write::version("resource_version", request.resource_version)?;
    Ok((
        Scope::from_wire(&request.namespace),
        version.map_or(WatchFrom::Now, WatchFrom::After),
    ))
}

pub(super) fn encode(event: &Event) -> proto::WatchGpusResponse {
    let type_ = match event.type_ {
        EventType::Added => proto::EventType::Added,
        EventType::Modified => proto::EventType::Modified,
        EventType::Deleted => proto::EventType::Deleted,
    };
    proto::WatchGpusResponse {
        r#type: type_.into(),
        gpu: Some(convert::gpu(&event.gpu)),
    }
}
