//! WatchGpus.

use device_api_core::watch::{WatchFrom, WatchRequest};
use device_api_proto::upstream::{self as proto, server as served};

use super::{convert, read, write};
use crate::status::Refusal;
use crate::watch::Tell;

pub(super) fn parse(request: proto::WatchGpusRequest) -> Result<WatchRequest, Refusal> {
    let version = write::version(
        "opts.resource_version",
        &request.opts.unwrap_or_default().resource_version,
    )?;
    Ok(WatchRequest {
        selection: read::selection(&request.namespace)?,
        from: version.map_or(WatchFrom::Now, WatchFrom::After),
        exact: false,
        bookmarks: false,
    })
}

/// This dialect's `ERROR` is never sent: errors are gRPC's own. It has no word for a bookmark.
pub(super) fn encode(tell: Tell) -> Option<served::WatchGpusResponse> {
    match tell {
        Tell::Change(event) => Some(served::WatchGpusResponse {
            r#type: event.type_.as_str().to_owned(),
            object: Some(convert::gpu(&event.gpu)),
        }),
        Tell::Bookmark { .. } => None,
    }
}
