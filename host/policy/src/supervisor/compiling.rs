//! Compiling beside the supervisor's thread, one component at a time, so that nothing else that thread does
//! waits for it (design H5, H10).
//!
//! ```text
//!  load ──code cached, or compiled since──▶ Loaded
//!    │ else                                                       policy-compiler thread
//!    ▼                                                                    │
//!  `Compiling`, and ordered ──▶ waiting ──▶ under way ──compiled──▶ Message::Compiled ──▶ the set is gone
//!                                                                                          over again
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use device_api_core::limits::POLICIES_MAX;
use device_api_wasm::{Cached, Compiler, Limits, LoadError, Loaded};

use super::inbox::Inbox;
use super::worker::Message;
use crate::ledger::sha256;
use crate::load::Loader;
use crate::loaded::lock;
use crate::source::Bytes;

/// Components that wait at once: each policy with two to go back to. One more is ordered when the set is
/// gone over again.
const WAITING_MAX: usize = 3 * POLICIES_MAX;

/// Results remembered, so that a set is not compiled again for one file of it; the oldest go first.
const RESULTS_MAX: usize = 4 * POLICIES_MAX;

/// One component, and what it may use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    digest: Arc<str>,
    limits: Limits,
}

/// What came of an order.
#[derive(Debug)]
pub(crate) struct Compiled {
    order: Order,
    result: Result<Loaded, Arc<LoadError>>,
}

/// Which results are forgotten, since the order may fare better now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forget {
    /// A pass that follows a compile.
    Nothing,
    /// What failed for want of something.
    Transient,
    /// What failed: an operator wants to see.
    Failures,
}

/// A handle: clones share one queue.
#[derive(Clone)]
pub(crate) struct CompileQueue(Arc<Shared>);

struct Shared {
    compiler: Compiler,
    inbox: Inbox,
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    is_stopped: bool,
    waiting: VecDeque<(Order, Bytes)>,
    /// Being compiled, or compiled and not taken in yet.
    under_way: Vec<Order>,
    results: VecDeque<Compiled>,
}

impl CompileQueue {
    pub(crate) fn new(compiler: Compiler, inbox: Inbox) -> Self {
        Self(Arc::new(Shared {
            compiler,
            inbox,
            orders: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Starts the thread that compiles, until it is stopped.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(&self) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.0);
        thread::Builder::new()
            .name("policy-compiler".to_owned())
            .spawn(move || shared.run())
    }

    /// Ends what is being compiled, and the thread.
    pub(crate) fn stop(&self) {
        let mut orders = lock(&self.0.orders);
        orders.is_stopped = true;
        orders.waiting.clear();
        drop(orders);
        self.0.compiler.stop();
        self.0.changed.notify_all();
    }

    /// The set is about to be gone over: what it still needs is ordered again.
    pub(crate) fn begin(&self, forget: Forget) {
        let mut orders = lock(&self.0.orders);
        orders.waiting.clear();
        orders.results.retain(|compiled| match forget {
            Forget::Nothing => true,
            Forget::Transient => !compiled
                .result
                .as_ref()
                .is_err_and(|error| error.is_transient()),
            Forget::Failures => compiled.result.is_ok(),
        });
    }

    /// It was gone over. Where nothing is to come, code of which nobody has any need is let go of. What is
    /// needed is in use, for the most part, which shares it.
    pub(crate) fn end(&self, needed: &BTreeSet<Arc<str>>) {
        let mut orders = lock(&self.0.orders);
        if orders.waiting.is_empty() && orders.under_way.is_empty() {
            orders.results.retain(|compiled| {
                compiled.result.is_err() || needed.contains(&compiled.order.digest)
            });
        }
    }

    /// What the thread told.
    pub(crate) fn take_in(&self, compiled: Compiled) {
        let mut orders = lock(&self.0.orders);
        orders.under_way.retain(|order| *order != compiled.order);
        orders.results.retain(|other| other.order != compiled.order);
        orders.results.push_back(compiled);
        if orders.results.len() > RESULTS_MAX {
            orders.results.pop_front();
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        let orders = lock(&self.0.orders);
        orders.waiting.is_empty() && orders.under_way.is_empty()
    }

    /// Whether one of these is still to come.
    pub(crate) fn holds_any(&self, digests: &[Arc<str>]) -> bool {
        let orders = lock(&self.0.orders);
        let waiting = orders.waiting.iter().map(|(order, _)| order);
        waiting
            .chain(&orders.under_way)
            .any(|order| digests.contains(&order.digest))
    }
}

impl Orders {
    fn known(&self, order: &Order) -> Option<Result<Loaded, LoadError>> {
        let known = self.results.iter().find(|known| known.order == *order)?;
        Some(match &known.result {
            Ok(loaded) => Ok(loaded.clone()),
            Err(error) => Err(LoadError::Before(Arc::clone(error))),
        })
    }
}

impl Compiled {
    /// What came of it otherwise is told of where it is wanted.
    pub(crate) fn log(&self) {
        if self.result.is_ok() {
            tracing::info!(digest = %self.order.digest, "policy compiled");
        }
    }
}

impl Loader for CompileQueue {
    fn load(&self, bytes: &Bytes, limits: Limits) -> Result<Loaded, LoadError> {
        let digest: Arc<str> = sha256(bytes).into();
        let order = Order { digest, limits };
        // Before the cache, which would have a second copy of the same code.
        if let Some(known) = lock(&self.0.orders).known(&order) {
            return known;
        }
        if let Cached::Code(loaded) = self.0.compiler.cached(bytes, limits)? {
            return Ok(loaded);
        }
        let mut orders = lock(&self.0.orders);
        if orders.is_stopped {
            return Err(LoadError::Stopped);
        }
        let is_waiting = orders.waiting.iter().any(|(other, _)| *other == order);
        let is_ordered = is_waiting || orders.under_way.contains(&order);
        if !is_ordered && orders.waiting.len() < WAITING_MAX {
            orders.waiting.push_back((order, bytes.clone()));
            drop(orders);
            self.0.changed.notify_all();
        }
        Err(LoadError::Compiling)
    }
}

impl Shared {
    fn run(&self) {
        while let Some((order, bytes)) = self.next() {
            let compile = || self.compiler.load(&bytes, order.limits);
            let result = catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|_| {
                Err(LoadError::CompilerPanic {
                    message: "the host's own part of it panicked".to_owned(),
                })
            });
            let result = result.map_err(Arc::new);
            let told = self
                .inbox
                .send(Message::Compiled(Box::new(Compiled { order, result })));
            if told.is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<(Order, Bytes)> {
        let mut orders = lock(&self.orders);
        loop {
            if orders.is_stopped {
                return None;
            }
            if let Some((order, bytes)) = orders.waiting.pop_front() {
                orders.under_way.push(order.clone());
                return Some((order, bytes));
            }
            orders = self
                .changed
                .wait(orders)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for CompileQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompileQueue")
            .field("compiler", &self.0.compiler)
            .finish_non_exhaustive()
    }
}
