//! From bytes to a policy at work.

use std::fmt::Debug;
use std::sync::Arc;

use device_api_core::policy::PolicyInfo;
use device_api_core::signal::printable;
use device_api_wasm::{Engine, Limits, LoadError, Loaded, Program};

use crate::error::{PolicyError, PolicyHostError, is_want_of_means};
use crate::instance::Instance;
use crate::loaded::LoadedPolicy;
use crate::marker::Markers;
use crate::recipe::Recipe;
use crate::runner::Runner;
use crate::source::{Bytes, PolicySource};
use crate::telemetry::Telemetry;
use crate::validate::{Invalid, info};

/// Longest text of a guest that is shown: why it refuses its configuration.
const SAID_BYTES_MAX: usize = 1024;

/// Times that an instance is started which failed for want of processor time or memory: as often as a call
/// is repeated on its trial.
const START_TRIES: u32 = 5;

/// What makes machine code of a component: the engine itself, or a child process with a cache.
pub(crate) trait Loader: Debug + Send + Sync {
    /// `bytes` may be kept until they are compiled.
    fn load(&self, bytes: &Bytes, limits: Limits) -> Result<Loaded, LoadError>;
}

impl Loader for Engine {
    fn load(&self, bytes: &Bytes, limits: Limits) -> Result<Loaded, LoadError> {
        Engine::load(self, bytes, limits)
    }
}

/// Loads policies. One engine, which ends with the last policy loaded on it.
#[derive(Clone, Debug)]
pub struct PolicyHost {
    loader: Arc<dyn Loader>,
    markers: Option<Arc<Markers>>,
}

impl PolicyHost {
    /// Compiles in this process, and leaves no marks on the disk: for tools and tests.
    ///
    /// # Errors
    /// The engine can't run on this machine, or gets no thread.
    pub fn new() -> Result<Self, PolicyHostError> {
        Ok(Self::on(Arc::new(Engine::new()?), None))
    }

    pub(crate) fn on(loader: Arc<dyn Loader>, markers: Option<Arc<Markers>>) -> Self {
        Self { loader, markers }
    }

    /// Compiles, links and configures a policy, then starts its thread. Takes some 50 ms for a small
    /// component and seconds for an interpreter, on the calling thread. Logs that it is loaded; an
    /// error is the caller's to log.
    ///
    /// # Errors
    /// [`PolicyError`]: the file is not usable, or the guest refuses the configuration, fails, or
    /// describes itself outside of the contract.
    pub fn load(&self, source: &PolicySource) -> Result<Arc<LoadedPolicy>, PolicyError> {
        let runner = self.configured(source)?;
        log_loaded(&runner.info(), &source.origin);
        let spawned = LoadedPolicy::spawn(runner, source);
        let policy = spawned.map_err(|error| PolicyError::Thread {
            origin: source.origin.clone(),
            source: error,
        })?;
        Ok(Arc::new(policy))
    }

    /// Has it compiled, if that is still to be done; whether it can be used shows when it is loaded.
    pub(crate) fn order(&self, source: &PolicySource) -> Result<(), LoadError> {
        self.loader.load(&source.bytes, source.limits).map(drop)
    }

    /// The same without a thread.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn instance(&self, source: &PolicySource) -> Result<Instance, PolicyError> {
        self.configured(source).map(Instance::new)
    }

    fn configured(&self, source: &PolicySource) -> Result<Runner, PolicyError> {
        let origin = &source.origin;
        let unusable = |source: LoadError| {
            let origin = origin.clone();
            if matches!(source, LoadError::Compiling) {
                PolicyError::Compiling { origin }
            } else if source.is_too_much_to_compile() {
                PolicyError::TooMuch { origin, source }
            } else {
                PolicyError::Load { origin, source }
            }
        };
        let loaded = self
            .loader
            .load(&source.bytes, source.limits)
            .map_err(unusable)?;
        let program = Program::link(&loaded).map_err(unusable)?;
        let telemetry = Arc::new(Telemetry::new(origin, &source.limits));
        let marker = self
            .markers
            .as_ref()
            .and_then(|markers| markers.of(program.digest()));
        let recipe = Recipe {
            program,
            config: source.config.clone(),
            telemetry: Arc::clone(&telemetry),
            marker,
        };

        let mut started = recipe.start();
        for _ in 1..START_TRIES {
            if !started.as_ref().is_err_and(is_want_of_means) {
                break;
            }
            started = recipe.start();
        }
        let (sandbox, said) = started.map_err(|source| PolicyError::Configure {
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

        Ok(Runner::new(recipe, Arc::new(described.info), sandbox))
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
