//! What a policy may ask of its host: state, readings, a log line, the time.

use std::str::FromStr;

use crate::bindings::gpu::device_policy::{host, nvml, state};
use crate::types::Value;

pub use crate::bindings::gpu::device_policy::host::Level;
pub use crate::bindings::gpu::device_policy::nvml::{Miss, Reading};

/// The imports of the world. [`Imports`] is the daemon, [`FakeHost`](crate::testing::FakeHost) a
/// small second implementation for native tests.
pub trait Host {
    /// State of this policy for the device at hand, as the call has left it so far.
    fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// # Errors
    /// Over a quota; nothing was written.
    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), String>;

    fn delete(&mut self, key: &str);

    /// Sorted.
    fn keys(&self) -> Vec<String>;

    /// A reading that `info.readings` declared.
    ///
    /// # Errors
    /// Why there is none.
    fn reading(&self, key: &str) -> Result<Reading, Miss>;

    fn log(&self, level: Level, message: &str);

    /// Unix milliseconds of the newest signal of the call: the only clock there is.
    fn now_ms(&self) -> u64;

    /// Whether the host has a feature, `kind:WORD` or `reading:KEY`.
    fn has(&self, feature: &str) -> bool;
}

/// The daemon. Only in a component: natively each call of it panics.
#[derive(Clone, Copy, Debug)]
pub struct Imports;

impl Host for Imports {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        state::get(key)
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        state::put(key, value)
    }

    fn delete(&mut self, key: &str) {
        state::delete(key);
    }

    fn keys(&self) -> Vec<String> {
        state::keys()
    }

    fn reading(&self, key: &str) -> Result<Reading, Miss> {
        nvml::get(key)
    }

    fn log(&self, level: Level, message: &str) {
        host::log(level, message);
    }

    fn now_ms(&self) -> u64 {
        host::now_ms()
    }

    fn has(&self, feature: &str) -> bool {
        host::has(feature)
    }
}

/// Typed access on top of [`Host`]. Numbers are kept as decimal text, so that a person can read
/// them in a dump of the state.
pub trait HostExt: Host {
    /// A value kept with [`put_display`](Self::put_display). `None`: never written, or no such
    /// value any more (an older version of the policy wrote it otherwise).
    fn get_parsed<T: FromStr>(&self, key: &str) -> Option<T> {
        std::str::from_utf8(&self.get(key)?).ok()?.parse().ok()
    }

    /// # Errors
    /// Over a quota; nothing was written.
    fn put_display(&mut self, key: &str, value: impl std::fmt::Display) -> Result<(), String> {
        self.put(key, value.to_string().as_bytes())
    }

    /// An integer reading, or a flag as 0 and 1. `None`: the device does not tell; say nothing.
    fn int(&self, key: &str) -> Option<i64> {
        match self.reading(key).ok()?.value {
            Value::Int(value) => Some(value),
            Value::Flag(value) => Some(i64::from(value)),
            Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
        }
    }
}

impl<H: Host + ?Sized> HostExt for H {}
