//! A component on its way in: its bytes, and what it is run with.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use device_api_core::seating::Terms;
use device_api_wasm::Limits;

/// What the origin of a bundled policy begins with; no file of a directory has a slash in its name.
const BUNDLED: &str = "bundled/";

/// The bytes of a component: embedded in the daemon, or read from a file. A clone shares them.
#[derive(Clone)]
pub enum Bytes {
    Embedded(&'static [u8]),
    /// As they were read: no second copy is made to share them.
    Read(Arc<Vec<u8>>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Embedded(bytes) => bytes,
            Self::Read(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Read(Arc::new(bytes))
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Embedded(bytes)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// A component to be loaded.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// For messages: a file name, or [`bundled_origin`].
    pub origin: String,
    pub bytes: Bytes,
    /// For the guest's `configure`; empty means its defaults.
    pub config: String,
    pub limits: Limits,
    pub terms: Terms,
}

/// Where the bundled policy of that name says it is from: `bundled/NAME`.
#[must_use]
pub fn bundled_origin(name: &str) -> String {
    format!("{BUNDLED}{name}")
}

/// The name of a bundled policy by its origin; `None`: it is of a file.
#[must_use]
pub fn bundled_name(origin: &str) -> Option<&str> {
    origin.strip_prefix(BUNDLED)
}
