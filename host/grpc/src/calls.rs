//! What holds for every call, whichever service it is of, or none: it is counted with the code that
//! the client gets, it has a deadline, what it sends is bounded, and a message too large is told
//! apart from a version out of range.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use device_api_core::error::ApiError;
use device_api_core::limits::Bounds;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service as _;

use crate::budget::{Budget, Share};
use crate::conn::ConnInfo;
use crate::limits::RECEIVING_IN_ALL;
use crate::methods::Methods;
use crate::observe::{Call, RpcObserver};
use crate::status::{Refusal, going_down};

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// How tonic's own refusals of a message begin (percent-encoded, as in the header). It calls them
/// `OutOfRange`, which to the clients of a watch means to list again.
const RECEIVED_TOO_LARGE: &str = "Error,%20decoded%20message%20length%20too%20large";
const SENT_TOO_LARGE: &str = "Error,%20encoded%20message%20length%20too%20large";

/// How the decoder's refusals begin. tonic calls them `Internal`, as if it were our fault.
const NOT_DECODED: &str = "failed%20to%20decode%20Protobuf%20message";

/// Carries out calls.
pub(crate) struct Calls {
    routes: Routes,
    methods: &'static Methods,
    observer: Arc<dyn RpcObserver>,
    bounds: Arc<Bounds>,
    /// Bytes of requests that may be received at once, on all connections.
    receiving: Arc<Budget>,
    shutdown: watch::Receiver<bool>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl Calls {
    pub(crate) fn new(
        routes: Routes,
        methods: &'static Methods,
        observer: Arc<dyn RpcObserver>,
        bounds: Arc<Bounds>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let receiving = Arc::new(Budget::new(RECEIVING_IN_ALL * bounds.receive_bytes));
        Self {
            routes,
            methods,
            observer,
            bounds,
            receiving,
            shutdown,
        }
    }

    /// Carries one out. A refusal is an answer, too.
    pub(crate) async fn call(
        self: Arc<Self>,
        connection: Arc<ConnInfo>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let known = self.methods.of(request.uri().path());
        let call = Call::begin(self.observer.clone(), known.method);
        if *self.shutdown.borrow() {
            return Ok(self.answer(refusal(going_down()), call, None));
        }
        let asked = client_timeout(request.headers());
        let deadline = if known.streams {
            asked
        } else {
            Some(asked.map_or(self.bounds.request_time, |asked| {
                asked.min(self.bounds.request_time)
            }))
        };
        let deadline = deadline.map(|time| Instant::now() + time);
        let receiving = (!known.streams)
            .then(|| Share::new(connection.receiving.clone(), self.receiving.clone()));
        let receive_bytes = self.bounds.receive_bytes;
        let mut request = request.map(|body| Receiving {
            body,
            receiving,
            receive_bytes,
        });
        request.extensions_mut().insert(connection);
        let answer = self.routes.clone().call(request);
        let answer = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, answer).await,
            None => Ok(answer.await),
        };
        Ok(match answer {
            Ok(Ok(answer)) => {
                let deadline = deadline.filter(|_| known.streams);
                self.answer(answer, call, deadline)
            }
            Err(_elapsed) => self.answer(self.late().into_http(), call, None),
        })
    }

    /// Which of the two deadlines it was, is the client's to know: it set one of them.
    fn late(&self) -> Status {
        Status::deadline_exceeded(format!(
            "the call was not done within its deadline; limit request-time is {:?}, see --limit",
            self.bounds.request_time
        ))
    }

    fn answer(
        &self,
        answer: Response<Body>,
        call: Call,
        deadline: Option<Instant>,
    ) -> Response<Answer> {
        let (mut head, body) = answer.into_parts();
        let mut call = Some(call);
        if head.headers.contains_key(GRPC_STATUS) {
            amend(&mut head.headers, &self.bounds);
            end(&mut call, &head.headers);
        }
        let answer = Answer {
            body,
            call,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            bounds: self.bounds.clone(),
            is_over: false,
        };
        Response::from_parts(head, answer)
    }
}

fn refusal(error: ApiError) -> Response<Body> {
    Status::from(Refusal::from(error)).into_http()
}

/// Tells the observer the code that is sent.
fn end(call: &mut Option<Call>, trailers: &HeaderMap) {
    if let Some(call) = call.take() {
        let code = trailers.get(GRPC_STATUS).map(HeaderValue::as_bytes);
        call.end(code.map_or(Code::Unknown, Code::from_bytes));
    }
}

/// A message too large is `ResourceExhausted`, naming the limit; one that can't be decoded is
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
    } else if said.starts_with(NOT_DECODED) {
        Status::invalid_argument("the request is not what its .proto says; build the client anew")
    } else {
        return;
    };
    // What is ours is ASCII and fits a header.
    if better.add_header(trailers).is_err() {
        tracing::debug!(%better, "a status could not be amended");
    }
}

/// The deadline in the headers (gRPC's `grpc-timeout`: up to 8 digits and a unit). One that can't be
/// read is none.
fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// A request on its way in.
struct Receiving {
    body: Incoming,
    /// `None`: it is of a stream, whose messages are small.
    receiving: Option<Share>,
    receive_bytes: usize,
}

impl http_body::Body for Receiving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Poll::Ready(Some(Err(Status::from_error(error.into()))));
            }
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        if self
            .receiving
            .as_mut()
            .is_none_or(|share| share.grow(bytes))
        {
            return Poll::Ready(Some(Ok(frame)));
        }
        let max = self.receive_bytes;
        Poll::Ready(Some(Err(Status::resource_exhausted(format!(
            "too many large requests at once; limit receive-bytes is {max}, and a few times that is received at a time"
        )))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer on its way out; what it ends with is told to the observer.
pub(crate) struct Answer {
    body: Body,
    /// `None`: its end was told.
    call: Option<Call>,
    deadline: Option<Pin<Box<Sleep>>>,
    bounds: Arc<Bounds>,
    is_over: bool,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let late = Status::deadline_exceeded("the deadline that the client set has passed");
            let mut trailers = HeaderMap::new();
            self.is_over = true;
            if let Err(error) = late.add_header(&mut trailers) {
                return Poll::Ready(Some(Err(error)));
            }
            end(&mut self.call, &trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(match frame.into_trailers() {
                Ok(mut trailers) => {
                    amend(&mut trailers, &self.bounds);
                    end(&mut self.call, &trailers);
                    Frame::trailers(trailers)
                }
                Err(data) => data,
            })),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_deadline_is_read_as_grpc_writes_it() {
        #[track_caller]
        fn check(text: &str, expected: Option<Duration>) {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, text.parse().expect("a header"));
            assert_eq!(client_timeout(&headers), expected, "{text}");
        }
        check("250m", Some(Duration::from_millis(250)));
        check("1S", Some(Duration::from_secs(1)));
        check("2M", Some(Duration::from_secs(120)));
        check("1H", Some(Duration::from_secs(3600)));
        check("7u", Some(Duration::from_micros(7)));
        check("7n", Some(Duration::from_nanos(7)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            "1.5S",
            "999999999S",
            "1 S",
        ] {
            check(text, None);
        }
        assert_eq!(client_timeout(&HeaderMap::new()), None);
    }
}
