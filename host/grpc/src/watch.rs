//! A watch as a stream of responses: takes changes set by set, hands them out one by one, and says
//! `Unavailable` when the daemon stops (design W4).

use std::fmt;
use std::vec;

use device_api_core::ports::WatchStream;
use device_api_core::watch::Event;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::codegen::BoxStream;
use tonic::{Code, Status};

use crate::observe::{ActiveWatch, Call};
use crate::status::{Refusal, going_down};

/// What a watch holds as long as it lasts.
type Held = (ActiveWatch, Vec<OwnedSemaphorePermit>);

/// One running watch.
pub(crate) struct Watching<W, A> {
    source: W,
    encode: fn(&Event) -> A,
    /// The set being sent. The source merges what comes meanwhile (design W2), so this is never
    /// topped up.
    set: vec::IntoIter<Event>,
    shutdown: watch::Receiver<bool>,
    call: Call,
    _held: Held,
}

impl<W, A> fmt::Debug for Watching<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

impl<W: WatchStream, A: Send + 'static> Watching<W, A> {
    pub(crate) fn new(
        source: W,
        encode: fn(&Event) -> A,
        shutdown: watch::Receiver<bool>,
        call: Call,
        held: Held,
    ) -> Self {
        Self {
            source,
            encode,
            set: Vec::new().into_iter(),
            shutdown,
            call,
            _held: held,
        }
    }

    pub(crate) fn into_stream(self) -> BoxStream<A> {
        Box::pin(stream::unfold(Some(self), async |running| {
            let mut running = running?;
            match running.next().await {
                Some(event) => {
                    running.call.observer().watch_event(event.type_.as_str());
                    let answer = (running.encode)(&event);
                    Some((Ok(answer), Some(running)))
                }
                None => {
                    running.call.end(Code::Unavailable);
                    Some((Err(Status::from(Refusal::from(going_down()))), None))
                }
            }
        }))
    }

    /// The next change; `None` when the daemon is going down.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.set.next() {
                return Some(event);
            }
            tokio::select! {
                biased;
                // An error means that whoever could stop us is gone: that is a stop, too.
                _ = self.shutdown.wait_for(|down| *down) => return None,
                set = self.source.next() => self.set = set?.into_iter(),
            }
        }
    }
}
