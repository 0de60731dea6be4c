//! The guests, each built once for all tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use device_api_policy::{GuestLimits, LoadedPolicy, PolicySource};
use guest_build::wasi;

/// As its toolchain made it.
#[derive(Clone)]
pub(crate) struct Guest {
    /// What it calls itself.
    pub(crate) name: &'static str,
    /// The one type that it makes a problem of at XID 79.
    pub(crate) condition: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Where all test programs build, one after the other.
fn workshop() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasi-guests")
}

fn read(name: &'static str, condition: &'static str, path: &Path) -> Guest {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Guest {
        name,
        condition,
        bytes,
    }
}

/// Rust's `wasm32-wasip2`.
pub(crate) fn wasip2() -> Guest {
    static BUILT: OnceLock<Guest> = OnceLock::new();
    let build = || {
        read(
            "wasi-p2",
            "RustOffTheBus",
            &wasi::rust(&workshop(), "wasi-p2-guest").unwrap(),
        )
    };
    BUILT.get_or_init(build).clone()
}

/// `wasm32-wasip1` with the adapter: `tests/fixtures/cargo-component`, as it was built.
pub(crate) fn cargo_component() -> Guest {
    let path = "../../tests/fixtures/cargo-component/policy.wasm";
    read(
        "cargo-component",
        "ComponentOffTheBus",
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(path),
    )
}

/// componentize-py; `None`, said aloud, where there is no Python.
pub(crate) fn python() -> Option<Guest> {
    static BUILT: OnceLock<Option<Guest>> = OnceLock::new();
    let build = || {
        let path = wasi::python(&workshop(), "tests/guests/wasi-py").unwrap();
        path.map(|path| read("wasi-py", "PythonOffTheBus", &path))
    };
    BUILT.get_or_init(build).clone()
}

/// componentize-js; `None`, said aloud, where there is no Node.js.
pub(crate) fn javascript() -> Option<Guest> {
    static BUILT: OnceLock<Option<Guest>> = OnceLock::new();
    let build = || {
        let path = wasi::javascript(&workshop(), "tests/guests/wasi-js").unwrap();
        path.map(|path| read("wasi-js", "JavaScriptOffTheBus", &path))
    };
    BUILT.get_or_init(build).clone()
}

/// The default limits but for time: the machine may be busy, and its code unoptimised. The log is kept.
pub(crate) fn source(guest: &Guest) -> PolicySource {
    crate::logged::capture();
    PolicySource {
        limits: GuestLimits {
            call_deadline: Duration::from_secs(1),
            start_deadline: Duration::from_secs(10),
            ..GuestLimits::default()
        },
        origin: format!("{}.wasm", guest.name),
        ..crate::house::source(guest.bytes.clone())
    }
}

/// So that among the calls are as many fresh instances as warm ones of each age.
pub(crate) const CALLS_PER_INSTANCE: u64 = 5;

/// At work. The same for all tests, as an interpreter takes seconds to compile.
pub(crate) fn loaded(guest: &Guest) -> Arc<LoadedPolicy> {
    type Slot = Arc<OnceLock<Arc<LoadedPolicy>>>;
    static LOADED: Mutex<BTreeMap<&str, Slot>> = Mutex::new(BTreeMap::new());
    let slot = {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        Slot::clone(loaded.entry(guest.name).or_default())
    };
    let load = || {
        let mut source = source(guest);
        source.limits.calls_per_instance_max = CALLS_PER_INSTANCE;
        crate::house::try_load(&source).unwrap_or_else(|error| panic!("{}", error.chain()))
    };
    Arc::clone(slot.get_or_init(load))
}
