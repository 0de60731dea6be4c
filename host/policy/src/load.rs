//! From bytes to a policy at work.

use std::borrow::Cow;
use std::sync::Arc;

use device_api_core::policy::PolicyInfo;
use device_api_core::signal::printable;
use device_api_wasm::{Engine, Limits, LoadError, Program};

use crate::error::{PolicyError, PolicyHostError};
use crate::runner::{LoadedPolicy, Recipe, Runner};
use crate::telemetry::Telemetry;
use crate::validate::{Invalid, info};

/// Longest text of a guest that is shown: why it refuses its configuration.
const SAID_BYTES_MAX: usize = 1024;

/// A component to be loaded.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// For messages: a file name, or `bundled/NAME`.
    pub origin: String,
    pub bytes: Cow<'static, [u8]>,
    /// For the guest's `configure`; empty means its defaults.
    pub config: String,
    pub limits: Limits,
}

/// Loads policies. One engine, which ends with the last policy loaded on it.
#[derive(Clone, Debug)]
pub struct PolicyHost {
    engine: Engine,
}

impl PolicyHost {
    /// # Errors
    /// The engine can't run on this machine, or gets no thread.
    pub fn new() -> Result<Self, PolicyHostError> {
        Ok(Self {
            engine: Engine::new()?,
        })
    }

    /// Compiles, links and configures a policy, then starts its thread. Takes some 50 ms for a small
    /// component and seconds for an interpreter, on the calling thread. Logs that it is loaded; an
    /// error is the caller's to log.
    ///
    /// # Errors
    /// [`PolicyError`]: the file is not usable, or the guest refuses the configuration, fails, or
    /// describes itself outside of the contract.
    pub fn load(&self, source: &PolicySource) -> Result<Arc<LoadedPolicy>, PolicyError> {
        let origin = &source.origin;
        let unusable = |source: LoadError| PolicyError::Load {
            origin: origin.clone(),
            source,
        };
        let loaded = self
            .engine
            .load(&source.bytes, source.limits)
            .map_err(unusable)?;
        let program = Program::link(&loaded).map_err(unusable)?;
        let telemetry = Arc::new(Telemetry::new(origin));
        let recipe = Recipe {
            program,
            config: source.config.clone(),
            telemetry: Arc::clone(&telemetry),
        };

        let (sandbox, said) = recipe.start().map_err(|source| PolicyError::Configure {
            origin: origin.clone(),
            source,
        })?;
        let said = said.map_err(|text| {
            let said = printable(&text, SAID_BYTES_MAX);
            PolicyError::Refused {
                origin: origin.clone(),
                said,
            }
        })?;
        let described =
            info::describe(&said, recipe.program.digest()).map_err(|Invalid(what)| {
                PolicyError::Invalid {
                    origin: origin.clone(),
                    what,
                }
            })?;
        telemetry.set_name(&described.info.id.name);
        for kind in &described.unknown_kinds {
            telemetry.unknown_word("kind of signal", kind, "a kind that never comes");
        }

        let info = Arc::new(described.info);
        log_loaded(&info, origin);
        let runner = Runner {
            recipe,
            info,
            sandbox: Some(sandbox),
        };
        let policy = LoadedPolicy::spawn(runner, origin).map_err(|source| PolicyError::Thread {
            origin: origin.clone(),
            source,
        })?;
        Ok(Arc::new(policy))
    }
}

fn log_loaded(info: &PolicyInfo, origin: &str) {
    let types: Vec<&str> = info
        .owns
        .iter()
        .map(|owned| owned.condition.as_str())
        .collect();
    tracing::info!(
        policy = %info.id,
        origin,
        owns = %types.join(","),
        subscriptions = info.subscriptions.len(),
        "policy loaded"
    );
}
