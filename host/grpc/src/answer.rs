//! An answer on its way out: its end is told to the observer, and its bytes are held against what may wait
//! unread, until HTTP/2 has sent them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use device_api_core::error::ApiError;
use device_api_core::limits::Bounds;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::budget::{Held, Kind};
use crate::conn::ConnInfo;
use crate::observe::Call;
use crate::status::Refusal;
use crate::unsent::Waiting;

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// How tonic's own refusals of a message begin (percent-encoded, as in the header). It calls them
/// `OutOfRange`, which to the clients of a watch means to list again.
const RECEIVED_TOO_LARGE: &str = "Error,%20decoded%20message%20length%20too%20large";
const SENT_TOO_LARGE: &str = "Error,%20encoded%20message%20length%20too%20large";

/// How its refusals of what can't be read begin. tonic calls them `Internal`, as if it were our fault.
const UNREADABLE: [&str; 3] = [
    "failed%20to%20decode%20Protobuf%20message",
    "Unexpected%20EOF%20decoding%20stream",
    "protocol%20error:%20received%20message",
];

/// An answer, which is a stream of them where the call is a watch.
pub(crate) struct Answer {
    body: Body,
    /// `None`: its end was told.
    call: Option<Call>,
    connection: Arc<ConnInfo>,
    bounds: Arc<Bounds>,
    terms: Terms,
    is_over: bool,
}

/// How long an answer may last, and what it holds.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// After it a stream ends.
    pub(crate) deadline: Option<Pin<Box<Sleep>>>,
    /// How long the client may take to read what it is sent. `None`: as long as it likes, as it is a watch:
    /// HTTP/2 and the encoder hold little of one, and there are so many.
    pub(crate) unread: Option<Duration>,
    /// The call itself.
    pub(crate) held: Option<Held>,
    /// There is one answer, and the call is held until that is sent; else until the stream ends.
    pub(crate) is_one: bool,
}

/// Bytes that HTTP/2 has to send. It drops them when they are sent, or never will be.
#[derive(Debug)]
pub(crate) struct Unread {
    bytes: Bytes,
    _reckoned: Option<Reckoned>,
}

/// What is held as long as an answer is unread.
#[derive(Debug)]
struct Reckoned {
    _bytes: Held,
    _call: Option<Held>,
    _waiting: Waiting,
}

impl Answer {
    pub(crate) fn new(
        answer: Response<Body>,
        call: Call,
        connection: Arc<ConnInfo>,
        bounds: Arc<Bounds>,
        terms: Terms,
    ) -> Response<Self> {
        let (mut head, body) = answer.into_parts();
        let mut call = Some(call);
        if head.headers.contains_key(GRPC_STATUS) {
            amend(&mut head.headers, &bounds);
            end(&mut call, &head.headers);
        }
        let answer = Self {
            body,
            call,
            connection,
            bounds,
            terms,
            is_over: false,
        };
        Response::from_parts(head, answer)
    }

    /// What the stream ends with, when not by itself.
    fn cut(&mut self, status: &Status) -> Result<Frame<Unread>, Status> {
        let mut trailers = HeaderMap::new();
        self.is_over = true;
        // What it holds is of no use any more.
        self.body = Body::empty();
        status.add_header(&mut trailers)?;
        end(&mut self.call, &trailers);
        Ok(Frame::trailers(trailers))
    }

    fn hand_out(&mut self, bytes: Bytes) -> Result<Frame<Unread>, Status> {
        let Some(time) = self.terms.unread else {
            let _reckoned = None;
            return Ok(Frame::data(Unread { bytes, _reckoned }));
        };
        match self.connection.account.hold(Kind::Answering, bytes.len()) {
            Ok(held) => {
                let _reckoned = Some(Reckoned {
                    _bytes: held,
                    _call: self.terms.held.take_if(|_| self.terms.is_one),
                    _waiting: self.connection.unsent.begin(Instant::now() + time),
                });
                Ok(Frame::data(Unread { bytes, _reckoned }))
            }
            Err(_level) => self.cut(&Status::resource_exhausted(format!(
                "too much was answered and not read; limit send-bytes is {}, and a few times that is kept for clients to read",
                self.bounds.send_bytes
            ))),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("call", &self.call)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

impl http_body::Body for Answer {
    type Data = Unread;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Unread>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(deadline) = &mut self.terms.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let late = Status::deadline_exceeded("the deadline of the stream has passed");
            return Poll::Ready(Some(self.cut(&late)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Some(self.hand_out(bytes)),
                Err(frame) => frame.into_trailers().ok().map(|mut trailers| {
                    amend(&mut trailers, &self.bounds);
                    end(&mut self.call, &trailers);
                    Ok(Frame::trailers(trailers))
                }),
            },
            Some(Err(status)) => {
                if let Some(call) = self.call.take() {
                    call.end(status.code());
                }
                Some(Err(status))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buf for Unread {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// Tells the observer the code that is sent.
fn end(call: &mut Option<Call>, trailers: &HeaderMap) {
    if let Some(call) = call.take() {
        let code = trailers.get(GRPC_STATUS).map(HeaderValue::as_bytes);
        call.end(code.map_or(Code::Unknown, Code::from_bytes));
    }
}

/// A message too large is `ResourceExhausted`, naming the limit; one that can't be read is
/// `InvalidArgument`.
fn amend(trailers: &mut HeaderMap, bounds: &Bounds) {
    let code = trailers
        .get(GRPC_STATUS)
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
    if !matches!(code, Code::OutOfRange | Code::Internal) {
        return;
    }
    let said = trailers.get(GRPC_MESSAGE).map(HeaderValue::to_str);
    let said = said.and_then(Result::ok).unwrap_or_default();
    let exhausted = |limit, max| Status::from(Refusal::from(ApiError::Exhausted { limit, max }));
    let better = if said.starts_with(RECEIVED_TOO_LARGE) {
        exhausted("receive-bytes", bounds.receive_bytes)
    } else if said.starts_with(SENT_TOO_LARGE) {
        exhausted("send-bytes", bounds.send_bytes)
    } else if UNREADABLE.iter().any(|begin| said.starts_with(begin)) {
        Status::invalid_argument("the request is not what its .proto says; build the client anew")
    } else {
        return;
    };
    // What is ours is ASCII and fits a header.
    if better.add_header(trailers).is_err() {
        tracing::debug!(%better, "a status could not be amended");
    }
}
