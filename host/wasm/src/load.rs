//! From bytes to compiled code.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::binary;
use crate::compile::seal;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::limits::Limits;
use crate::sandbox::panic_message;

/// A compiled component, not yet tied to a world.
#[derive(Clone)]
pub struct Loaded {
    engine: Engine,
    component: Component,
    digest: Arc<str>,
    limits: Limits,
}

impl Engine {
    /// Checks and compiles a component in this process, with no bound on time and memory: for tests and
    /// tools. A daemon uses [`Compiler::load`](crate::compile::Compiler::load). Takes some 50 ms for a small one and seconds for an
    /// interpreter, on the calling thread; nothing of `bytes` is run.
    ///
    /// # Errors
    /// All of [`LoadError`] but what [`Program::link`](crate::Program::link) finds.
    pub fn load(&self, bytes: &[u8], limits: Limits) -> Result<Loaded, LoadError> {
        let digest = seal::hex(&Loaded::check(bytes, &limits)?);
        let begun = Instant::now();
        let compile = || Component::from_binary(self.wasmtime(), bytes);
        let component = catch_unwind(AssertUnwindSafe(compile))
            .map_err(|panic| LoadError::CompilerPanic {
                message: panic_message(panic.as_ref()),
            })?
            .map_err(|error| LoadError::Invalid(error.into()))?;
        tracing::debug!(digest, bytes = bytes.len(), took = ?begun.elapsed(), "compiled a component");
        Ok(Loaded::new(self, component, digest, limits))
    }
}

impl Loaded {
    /// What can be said without compiling; the component's SHA-256.
    pub(crate) fn check(bytes: &[u8], limits: &Limits) -> Result<[u8; 32], LoadError> {
        limits.check()?;
        if bytes.len() > limits.component_bytes_max {
            return Err(LoadError::TooLarge {
                bytes: bytes.len(),
                max: limits.component_bytes_max,
            });
        }
        binary::check_component(bytes)?;
        Ok(Sha256::digest(bytes).into())
    }

    pub(crate) fn new(
        engine: &Engine,
        component: Component,
        digest: String,
        limits: Limits,
    ) -> Self {
        Self {
            engine: engine.clone(),
            component,
            digest: digest.into(),
            limits,
        }
    }

    /// SHA-256 of the bytes, lower-case hex.
    #[must_use]
    pub fn digest(&self) -> &Arc<str> {
        &self.digest
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn component(&self) -> &Component {
        &self.component
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("digest", &self.digest)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
