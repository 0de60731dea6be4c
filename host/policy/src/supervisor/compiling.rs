//! Compiling beside the supervisor's thread, one component at a time, so that nothing else that thread does
//! waits for it (design H5, H10).
//!
//! ```text
//!  load ──code cached, or compiled since──▶ Loaded
//!    │ else                                                       policy-compiler thread
//!    ├─ too much for it before ──▶ refused          ┌─ put off ─┐         │
//!    ▼                                              ▼           │         │
//!  `Compiling`, and ordered ──────────────────▶ waiting ──▶ under way ──compiled──▶ Message::Compiled
//!                                                                             ──▶ the set is gone over again
//! ```

mod orders;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use device_api_core::clock::WallTime;
use device_api_wasm::{Cached, Compiler, Limits, LoadError, Loaded};

use super::inbox::Inbox;
use super::worker::Message;
use crate::ledger::{Ledger, sha256};
use crate::load::Loader;
use crate::loaded::lock;
use crate::source::Bytes;
use orders::Orders;
pub(crate) use orders::{Compiled, Forget, Order, Rank};

/// A handle: clones share one queue.
#[derive(Clone)]
pub(crate) struct CompileQueue(Arc<Shared>);

struct Shared {
    compiler: Compiler,
    inbox: Inbox,
    orders: Mutex<Orders>,
    changed: Condvar,
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
        orders.begin(Forget::Nothing, BTreeMap::new());
        drop(orders);
        self.0.compiler.stop();
        self.0.changed.notify_all();
    }

    /// What was too much for this compiler in runs before.
    pub(crate) fn remember(&self, ledger: &Ledger) {
        let compiler = &self.0.compiler;
        let mut orders = lock(&self.0.orders);
        for (digest, error) in ledger.too_much(&compiler.identity(), compiler.settings()) {
            orders.was_too_much(digest.into(), Arc::new(error), false);
        }
    }

    /// The set is about to be gone over: what it still needs is ordered again.
    /// Until what this gives is dropped, only what goes first in any case is compiled.
    pub(crate) fn begin(&self, forget: Forget, ranks: BTreeMap<Arc<str>, Rank>) -> Open {
        lock(&self.0.orders).begin(forget, ranks);
        Open(self.clone())
    }

    /// It was gone over. Where nothing is to come, code of which nobody has any need is let go of. What is
    /// needed is in use, for the most part, which shares it.
    pub(crate) fn end(&self, needed: &BTreeSet<Arc<str>>) {
        lock(&self.0.orders).end(needed);
        self.0.changed.notify_all();
    }

    /// What the thread told; the ledger follows.
    pub(crate) fn take_in(&self, compiled: Compiled, ledger: &mut Ledger, now: WallTime) {
        let digest = &compiled.order.digest;
        match &compiled.result {
            Ok(_) => {
                tracing::info!(%digest, "policy compiled");
                ledger.can_be_compiled(digest);
            }
            // What came of it otherwise is told of where it is wanted.
            Err(error) => {
                ledger.could_not_be_compiled(digest, &self.0.compiler.identity(), error, now);
            }
        }
        lock(&self.0.orders).take_in(compiled);
    }

    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.0.orders).is_idle()
    }

    /// Whether one of these is still to come.
    pub(crate) fn holds_any(&self, digests: &[Arc<str>]) -> bool {
        lock(&self.0.orders).holds_any(digests)
    }

    /// When [`Self::take_turns`] is to be called next.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        lock(&self.0.orders).gives_way_at()
    }

    /// Puts off what has been compiled for long while others wait.
    pub(crate) fn take_turns(&self) {
        let mut orders = lock(&self.0.orders);
        if orders.give_way(Instant::now()) {
            // Not past the end of that one, which takes the lock.
            self.0.compiler.put_off();
        }
    }
}

/// The set is being gone over. Dropped, it is not any more, even where a bug of ours cut that short.
#[must_use]
#[derive(Debug)]
pub(crate) struct Open(CompileQueue);

impl Drop for Open {
    fn drop(&mut self) {
        let Self(CompileQueue(shared)) = self;
        lock(&shared.orders).close();
        shared.changed.notify_all();
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
        let error = lock(&self.0.orders).place(order, bytes);
        self.0.changed.notify_all();
        Err(error)
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
            if self.is_put_off(&order, &bytes, &result) {
                continue;
            }
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
            if let Some(next) = orders.next() {
                return Some(next);
            }
            orders = self
                .changed
                .wait(orders)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn is_put_off(&self, order: &Order, bytes: &Bytes, result: &Result<Loaded, LoadError>) -> bool {
        let mut orders = lock(&self.orders);
        self.compiler.go_on();
        let is_put_off = orders.over(order, bytes, result);
        if is_put_off {
            tracing::info!(digest = %order.digest, "policy is compiled later: it takes long, and others wait");
        }
        is_put_off
    }
}

impl fmt::Debug for CompileQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompileQueue")
            .field("compiler", &self.0.compiler)
            .finish_non_exhaustive()
    }
}
