//! What holds for every call, whichever service it is of, or none: it is counted with the code that
//! the client gets, who may not write is refused before a byte of its request is read, it has a deadline, and
//! what it sends and is sent is bounded.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use device_api_core::error::ApiError;
use device_api_core::limits::Bounds;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use crate::answer::{Answer, Terms};
use crate::audit::{self, Audit};
use crate::budget::{Held, Kind};
use crate::conn::ConnInfo;
use crate::limits::{ASIDES_IN_ALL, CALLS_IN_ALL, COMMAND_TIME};
use crate::methods::{Does, Known, Methods};
use crate::observe::{Call, RpcObserver};
use crate::peer::Access;
use crate::receive::{Brought, receive};
use crate::status::{Refusal, going_down};

const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Carries out calls.
pub(crate) struct Calls {
    routes: Routes,
    methods: &'static Methods,
    observer: Arc<dyn RpcObserver>,
    audit: Arc<Audit>,
    bounds: Arc<Bounds>,
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
        audit: Arc<Audit>,
        bounds: Arc<Bounds>,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self {
            routes,
            methods,
            observer,
            audit,
            bounds,
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
        let asked = client_timeout(request.headers());
        let began = Instant::now();
        let time = self.time(known);
        let in_time = began + asked.map_or(time, |asked| asked.min(time));
        let answer = match self.admit(&connection, known) {
            Ok(held) => {
                let carried_out = self.carry_out(&connection, known, request);
                let answer = tokio::time::timeout_at(in_time, carried_out).await;
                let answer = answer.unwrap_or_else(|_elapsed| Err(self.late(known)));
                answer.map(|answer| (answer, held))
            }
            Err(refused) => Err(refused),
        };
        let (answer, terms) = match answer {
            Ok((answer, held)) => {
                let until = match known.does {
                    Does::Watch | Does::HealthWatch => asked.map(|asked| began + asked),
                    Does::Reflection => Some(in_time),
                    Does::Nothing | Does::Read | Does::Write => None,
                };
                (answer, self.terms(known, held, until))
            }
            Err(status) => (status.into_http(), Terms::default()),
        };
        let bounds = self.bounds.clone();
        Ok(Answer::new(answer, call, connection, bounds, terms))
    }

    /// Whether a call may begin; what it holds then.
    fn admit(&self, connection: &Arc<ConnInfo>, known: Known) -> Result<Held, Status> {
        if *self.shutdown.borrow() {
            return Err(Refusal::from(going_down()).into());
        }
        if let (Does::Write, Access::Read { reason, why }) = (known.does, &connection.access) {
            // What it is about would be in what is not read.
            let entry = audit::unread(known.method);
            self.audit
                .refused(&*self.observer, connection, &entry, *reason, why);
            let why = why.clone();
            return Err(Refusal::from(ApiError::Forbidden { why }).into());
        }
        let (kind, what, max) = match known.does {
            Does::HealthWatch | Does::Reflection => (
                Kind::Asides,
                "streams of health and reflection",
                ASIDES_IN_ALL,
            ),
            Does::Nothing | Does::Read | Does::Write | Does::Watch => {
                (Kind::Calls, "calls at once", CALLS_IN_ALL)
            }
        };
        connection.account.hold(kind, 1).map_err(|_level| {
            Status::resource_exhausted(format!(
                "too many {what}; there are at most {max} in all, and a part of them for one user"
            ))
        })
    }

    async fn carry_out(
        &self,
        connection: &Arc<ConnInfo>,
        known: Known,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        // Held until the answer is there: so long there is what was decoded.
        let mut held = connection
            .account
            .hold(Kind::Receiving, 0)
            .map_err(|_level| Status::resource_exhausted("too many requests at once"))?;
        let (mut head, body) = request.into_parts();
        let body = match known.does {
            // No service reads it.
            Does::Nothing => Brought::Whole(Bytes::new()),
            Does::Reflection => Brought::Streamed(body),
            // We have no compression, and tonic tells which there are not.
            _ if is_compressed(&head.headers) => Brought::Whole(Bytes::new()),
            Does::Read | Does::Write | Does::Watch | Does::HealthWatch => {
                let methods = self.methods;
                Brought::Whole(receive(methods, known, &self.bounds, body, &mut held).await?)
            }
        };
        head.extensions.insert(connection.clone());
        let request = Request::from_parts(head, body);
        match self.routes.clone().call(request).await {
            Ok(answer) => Ok(answer),
            Err(never) => match never {},
        }
    }

    fn terms(&self, known: Known, held: Held, until: Option<Instant>) -> Terms {
        let deadline = until.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let unread = (!known.lasts()).then_some(self.bounds.request_time);
        let is_one = matches!(known.does, Does::Nothing | Does::Read | Does::Write);
        Terms {
            deadline,
            unread,
            // A watch has a permit of its own by now.
            held: (known.does != Does::Watch).then_some(held),
            is_one,
        }
    }

    /// How long a call may take.
    fn time(&self, known: Known) -> Duration {
        let time = self.bounds.request_time;
        if known.is_command() {
            time.max(COMMAND_TIME)
        } else {
            time
        }
    }

    /// Which of the two deadlines it was, is the client's to know: it set one of them.
    fn late(&self, known: Known) -> Status {
        if known.is_command() {
            return Status::deadline_exceeded(format!(
                "the command was not done within its deadline ({:?} at most) and is still being carried out; ListPolicies tells what came of it",
                self.time(known)
            ));
        }
        Status::deadline_exceeded(format!(
            "the call was not done within its deadline; limit request-time is {:?}, see --limit",
            self.bounds.request_time
        ))
    }
}

fn is_compressed(headers: &HeaderMap) -> bool {
    headers
        .get(GRPC_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
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
