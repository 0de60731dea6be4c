//! A running source, as whoever started it holds it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use device_api_core::ports::{NvmlObserver, SignalSink};

use crate::config::Config;
use crate::control::Control;
use crate::counters::{Counters, Counts};
use crate::devices::Devices;
use crate::hearing::Hearing;
use crate::lifecycle::Lifecycle;
use crate::operator::{LastTold, Operator};
use crate::session::Context;
use crate::watch::{HungCall, Role, Watch};
use crate::watchdog::Watchdog;

/// How long [`Handle::stop`] takes at most: the threads' ends, and NVML's own shutdown.
pub const STOP_MAX: Duration = Duration::from_secs(3);

/// The NVML source.
#[derive(Debug)]
pub struct Nvml;

/// A running source. Dropping it lets the source end on its own; [`Handle::stop`] waits for that.
#[derive(Debug)]
pub struct Handle {
    control: Arc<Control>,
    counters: Arc<Counters>,
    watch: Arc<Watch>,
    hearing: Arc<Hearing>,
    last_told: Arc<LastTold>,
    threads: Vec<JoinHandle<()>>,
}

/// Looks at a source for as long as one likes.
#[derive(Clone, Debug)]
pub struct Monitor {
    counters: Arc<Counters>,
    watch: Arc<Watch>,
    hearing: Arc<Hearing>,
    last_told: Arc<LastTold>,
}

impl Monitor {
    pub fn counts(&self) -> Counts {
        self.counters.get()
    }

    /// The calls that hang just now, the longest first.
    pub fn hung(&self) -> Vec<HungCall> {
        self.watch.hung()
    }

    /// Whose events are not waited for while NVML is in use, and why; `None`: all that there may be are.
    pub fn missing_events(&self) -> Option<String> {
        self.hearing.missing()
    }

    /// NVML is in use, and the events of all its GPUs that have any are waited for.
    pub fn hears(&self) -> bool {
        self.last_told.is_ready() && self.hearing.missing().is_none()
    }
}

/// How the source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Cleanly,
    /// An NVML call hangs: its thread was left behind, and the library with it.
    Hung,
}

impl Nvml {
    /// Starts the source and returns at once; whether there is an NVML, `observer` is told.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start(
        config: Config,
        sink: Arc<dyn SignalSink>,
        observer: Arc<dyn NvmlObserver>,
    ) -> io::Result<Handle> {
        let control = Arc::new(Control::default());
        let counters = Arc::new(Counters::default());
        let watch = Arc::new(Watch::new(config.hung_after));
        let hearing = Arc::new(Hearing::default());
        let last_told = Arc::new(LastTold::new(observer));
        let devices = Devices::of_earlier(config.seen_before.clone());
        let context = Context {
            config: Arc::new(config),
            control: Arc::clone(&control),
            counters: Arc::clone(&counters),
            devices: Arc::new(devices),
            watch: Arc::clone(&watch),
            hearing: Arc::clone(&hearing),
            sink,
            observer: last_told.clone(),
        };
        let watchdog = Watchdog::new(context.clone());
        let mut handle = Handle {
            control: Arc::clone(&control),
            counters,
            watch,
            hearing,
            last_told,
            threads: Vec::new(),
        };
        let mut thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
            handle.threads.push(thread?);
            Ok::<(), io::Error>(())
        };
        // Dropping the handle on the way out stops the one that was started.
        thread("nvml-watch", Box::new(move || watchdog.run()))?;
        let ended = Ended(control);
        let run = move || {
            let _ended = ended;
            let _entered = context.watch.enter(Role::Life, 0);
            Lifecycle::new(context).run();
        };
        thread("nvml", Box::new(run))?;
        Ok(handle)
    }
}

impl Handle {
    pub fn counts(&self) -> Counts {
        self.counters.get()
    }

    pub fn monitor(&self) -> Monitor {
        Monitor {
            counters: Arc::clone(&self.counters),
            watch: Arc::clone(&self.watch),
            hearing: Arc::clone(&self.hearing),
            last_told: Arc::clone(&self.last_told),
        }
    }

    /// For an operator's words.
    pub fn operator(&self) -> Operator {
        Operator {
            control: Arc::clone(&self.control),
            watch: Arc::clone(&self.watch),
            last_told: Arc::clone(&self.last_told),
        }
    }

    /// Stops the source, within [`STOP_MAX`]. Blocks: not for an async worker.
    pub fn stop(mut self) -> Stopped {
        self.control.stop();
        if !self.control.wait_for_end(STOP_MAX) {
            tracing::error!("an NVML call hangs; leaving its thread and the library behind");
            return Stopped::Hung;
        }
        // The thread nvml has said so when it gave up waiting.
        if self.control.has_workers() {
            return Stopped::Hung;
        }
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a thread of the NVML source panicked");
            }
        }
        Stopped::Cleanly
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.control.stop();
    }
}

/// Says that the thread is over, also where it panicked.
#[derive(Debug)]
struct Ended(Arc<Control>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended();
    }
}
