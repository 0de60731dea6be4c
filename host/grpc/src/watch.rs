//! A watch as a stream of responses: takes changes set by set, hands them out one by one, and says
//! why when it ends (design W2, W4).

use std::fmt;
use std::vec;

use device_api_core::ids::ResourceVersion;
use device_api_core::ports::WatchStream;
use device_api_core::watch::{Event, Told, WatchEnd};
use futures_util::stream;
use tokio::sync::watch;
use tonic::Status;
use tonic::codegen::BoxStream;

use crate::budget::Held;
use crate::observe::ActiveWatch;
use crate::status::{Refusal, going_down};

/// What a watch holds as long as it lasts.
pub(crate) type Holds = (ActiveWatch, Held);

/// One thing that a dialect puts into a response.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tell<'a> {
    Change(&'a Event),
    Bookmark {
        version: ResourceVersion,
        initial: bool,
    },
}

/// One running watch.
pub(crate) struct Watching<W, A> {
    source: W,
    /// `None`: the dialect has no word for it.
    encode: fn(Tell) -> Option<A>,
    /// The set being sent. The source merges what comes meanwhile (design W2), so this is never
    /// topped up.
    set: vec::IntoIter<Event>,
    shutdown: watch::Receiver<bool>,
    active: ActiveWatch,
    _permit: Held,
}

impl<W, A> fmt::Debug for Watching<W, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching")
            .field("set", &self.set.len())
            .finish_non_exhaustive()
    }
}

impl<W: WatchStream, A: Send + 'static> Watching<W, A> {
    pub(crate) fn new(
        source: W,
        encode: fn(Tell) -> Option<A>,
        shutdown: watch::Receiver<bool>,
        (active, permit): Holds,
    ) -> Self {
        Self {
            source,
            encode,
            set: Vec::new().into_iter(),
            shutdown,
            active,
            _permit: permit,
        }
    }

    pub(crate) fn into_stream(self) -> BoxStream<A> {
        Box::pin(stream::unfold(Some(self), async |running| {
            let mut running = running?;
            match running.next().await {
                Ok(answer) => Some((Ok(answer), Some(running))),
                Err(end) => Some((Err(Status::from(end)), None)),
            }
        }))
    }

    /// The next response, or why there is none any more.
    async fn next(&mut self) -> Result<A, Refusal> {
        loop {
            for event in self.set.by_ref() {
                if let Some(answer) = (self.encode)(Tell::Change(&event)) {
                    self.active.event(event.type_.as_str());
                    return Ok(answer);
                }
            }
            let told = tokio::select! {
                biased;
                // An error means that whoever could stop us is gone: that is a stop, too.
                _ = self.shutdown.wait_for(|down| *down) => return Err(going_down().into()),
                told = self.source.next() => told,
            };
            match told.map_err(ended)? {
                Told::Changes(set) => self.set = set.into_iter(),
                Told::Bookmark { version, initial } => {
                    if let Some(answer) = (self.encode)(Tell::Bookmark { version, initial }) {
                        return Ok(answer);
                    }
                }
            }
        }
    }
}

fn ended(end: WatchEnd) -> Refusal {
    match end {
        WatchEnd::Closed => going_down().into(),
        WatchEnd::Behind { max } => Refusal::Behind { max },
    }
}
