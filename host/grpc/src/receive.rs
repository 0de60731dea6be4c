//! A request on its way in: it is received whole before anyone decodes it, so that what is never ended
//! holds no more than its bytes, and what is wrong with it has the right code.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use device_api_core::error::ApiError;
use device_api_core::limits::Bounds;
use futures_util::future::poll_fn;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Status;

use crate::budget::Held;
use crate::limits::{ELEMENT_BYTES, ELEMENTS, ELEMENTS_PER_CONDITION, READ_BYTES};
use crate::methods::{Does, Known, Methods};
use crate::status::Refusal;

/// What a message begins with: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// What a service is given to read.
pub(crate) enum Brought {
    /// A message with its head, or nothing.
    Whole(Bytes),
    /// As it comes.
    Streamed(Incoming),
}

/// Receives a request of `known`, to its end. `held` grows with it.
///
/// # Errors
/// Why it is refused.
pub(crate) async fn receive(
    methods: &Methods,
    known: Known,
    bounds: &Bounds,
    mut body: Incoming,
    held: &mut Held,
) -> Result<Bytes, Status> {
    let mut received = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await
    {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        // Trailers of a request say nothing.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        held.grow(data.len()).map_err(|_| too_many(bounds))?;
        received.extend_from_slice(&data);
        let length = length(&received)?;
        if let Some(length) = length {
            fits(known, bounds, length)?;
        }
        if length.is_some_and(|length| received.len() - HEAD_BYTES > length) {
            return Err(Status::invalid_argument(
                "there is more than one message in the request; this method takes one",
            ));
        }
    }
    // hyper calls it an end when the client takes the request back.
    if !http_body::Body::is_end_stream(&body) {
        return Err(Status::cancelled("the client took the request back"));
    }
    match length(&received)? {
        Some(length) if received.len() == HEAD_BYTES + length => {}
        _ => {
            return Err(Status::invalid_argument(
                "the request ends before its message does; send a whole one",
            ));
        }
    }
    let message = received.get(HEAD_BYTES..).unwrap_or_default();
    let elements = methods.elements(known, message);
    let max = ELEMENTS + ELEMENTS_PER_CONDITION * bounds.conditions_per_gpu;
    if elements > max {
        return Err(Status::invalid_argument(format!(
            "the request has {elements} elements in its lists; at most {max}"
        )));
    }
    held.grow(elements * ELEMENT_BYTES)
        .map_err(|_| too_many(bounds))?;
    Ok(received.freeze())
}

/// The length that a message claims, once that is known.
fn length(received: &[u8]) -> Result<Option<usize>, Status> {
    match received {
        [0, a, b, c, d, ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            Ok(Some(usize::try_from(length).unwrap_or(usize::MAX)))
        }
        [0, ..] | [] => Ok(None),
        [_, ..] => Err(Status::invalid_argument(
            "the message is compressed, or says so, and the headers do not say how",
        )),
    }
}

fn fits(known: Known, bounds: &Bounds, length: usize) -> Result<(), Status> {
    let max = bounds.receive_bytes;
    if length > max {
        let limit = "receive-bytes";
        return Err(Refusal::from(ApiError::Exhausted { limit, max }).into());
    }
    if length > READ_BYTES && known.does != Does::Write {
        return Err(Status::resource_exhausted(format!(
            "a request that changes nothing has at most {READ_BYTES} bytes; this one has {length}"
        )));
    }
    Ok(())
}

fn too_many(bounds: &Bounds) -> Status {
    let max = bounds.receive_bytes;
    Status::resource_exhausted(format!(
        "too many large requests at once; limit receive-bytes is {max}, and a few times that is received at a time"
    ))
}

impl http_body::Body for Brought {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len().try_into().unwrap_or(u64::MAX)),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}
