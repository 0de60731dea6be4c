//! WatchGpus.

use device_api_core::watch::{EventType, WatchFrom, WatchRequest};
use device_api_proto::native::{self as proto, server as served};

use super::{convert, select, write};
use crate::status::Refusal;
use crate::watch::Tell;

pub(super) fn parse(request: proto::WatchGpusRequest) -> Result<WatchRequest, Refusal> {
    let version = write::version("resource_version", request.resource_version)?;
    Ok(WatchRequest {
        selection: select::selection(
            &request.namespace,
            &request.label_selector,
            &request.field_selector,
        )?,
        from: version.map_or(WatchFrom::Now, WatchFrom::After),
        exact: request.exact,
        bookmarks: request.allow_bookmarks,
    })
}

pub(super) fn encode(tell: Tell) -> Option<served::WatchGpusResponse> {
    Some(match tell {
        Tell::Change(event) => served::WatchGpusResponse {
            r#type: type_(event.type_).into(),
            gpu: Some(convert::gpu(&event.gpu)),
            resource_version: convert::version(event.gpu.version),
            initial_state_end: false,
        },
        Tell::Bookmark { version, initial } => served::WatchGpusResponse {
            r#type: proto::EventType::Bookmark.into(),
            gpu: None,
            resource_version: convert::version(version),
            initial_state_end: initial,
        },
    })
}

fn type_(type_: EventType) -> proto::EventType {
    match type_ {
        EventType::Added => proto::EventType::Added,
        EventType::Modified => proto::EventType::Modified,
        EventType::Deleted => proto::EventType::Deleted,
    }
}
