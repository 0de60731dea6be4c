//! The policy host as the configuration has it: what is bundled, where more is looked for, where what it
//! remembers and what was compiled is kept.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bundled_policies::Bundled;
use device_api_core::clock::Clock;
use device_api_core::ports::Seats;
use device_api_policy::{
    CompileWorker, CompilerSettings, GuestLimits, Loading, PolicyHostError, PolicySource, Shadows,
    Supervisor, SupervisorConfig, Unlisted, bundled_origin, compile_memory_bytes,
};

use crate::config::Config;
use crate::metrics::Metrics;
use crate::readiness::{PartState, Readiness};
use crate::values::{Drills, StoreMode, UnlistedPolicies};

/// The first argument of the process that compiles (design H10): the daemon itself, started again.
const COMPILE: &str = "compile-component";

/// Whether this process was started to compile, and what came of it.
pub(crate) fn compiled(first: Option<&OsStr>) -> Option<std::process::ExitCode> {
    (first? == COMPILE).then(device_api_policy::compile_worker)
}

/// Has the policies loaded and seated by a thread of its own, which keeps looking for changes.
///
/// # Errors
/// No policy can be run on this machine, `--safe-mode` does without; or a newer daemon wrote what is remembered of them.
pub(crate) fn start(
    config: &Config,
    seats: Arc<dyn Seats>,
    shadows: Arc<Shadows>,
    clock: Arc<dyn Clock>,
    metrics: &Metrics,
    readiness: &Readiness,
) -> anyhow::Result<Arc<Supervisor>> {
    let limits = GuestLimits {
        call_deadline: config.policies.deadline,
        memory_bytes_max: config.policies.memory_bytes_max,
        ..GuestLimits::default()
    };
    let state_dir = match config.store.mode {
        StoreMode::Durable => Some(config.store.dir.clone()),
        StoreMode::Memory => None,
    };
    let supervised = SupervisorConfig {
        directory: config.policies.dir.clone(),
        policies_file: config.policies.file.clone(),
        unlisted: match config.policies.unlisted {
            UnlistedPolicies::Defaults => Unlisted::Defaults,
            UnlistedPolicies::Refuse => Unlisted::Refuse,
        },
        safe_mode: config.policies.safe_mode,
        limits,
        // A call must end, and its fallback be written, before readers stop waiting (design C3).
        call_deadline_max: config.limits.barrier_wait / 2,
        loading: loading(
            state_dir.as_ref().map(|dir| dir.join("code")),
            config.limits.compile_deadline,
        ),
        state_dir,
        drills_count: config.drills == Drills::Enforce,
        shadows,
        ..SupervisorConfig::new(bundled(limits))
    };
    let supervisor = Supervisor::begin(supervised, seats, clock).map_err(|error| {
        let newer = matches!(error, PolicyHostError::NewerLedger { .. });
        let what = if newer {
            "cannot go on from what is remembered of policies"
        } else {
            "policies can't be run here; --safe-mode does without them"
        };
        anyhow::Error::new(error).context(what)
    })?;
    let supervisor = Arc::new(supervisor);
    metrics
        .watch_policies(supervisor.policies())
        .context("cannot set up the metrics of policies")?;
    if let Some(compiler) = supervisor.compiler().cloned() {
        metrics.before_scrape(move |metrics| metrics.compile_counts(&compiler.counters()));
    }
    let asked = Arc::downgrade(&supervisor);
    let safe_mode = config.policies.safe_mode;
    readiness.asked("policies", move || match asked.upgrade() {
        None => (PartState::Off, "stopped".to_owned()),
        Some(supervisor) => {
            let (is_well, line) = supervisor.report();
            let state = match (is_well, safe_mode) {
                (_, true) => PartState::Off,
                (true, false) => PartState::Up,
                (false, false) => PartState::Degraded,
            };
            (state, line)
        }
    });
    Ok(supervisor)
}

/// Waits for the first set, in which a stop is heard.
///
/// # Errors
/// The runtime goes down.
pub(crate) async fn await_seated(policies: &Arc<Supervisor>) -> anyhow::Result<()> {
    let stopped = Stopping(Some(Arc::clone(policies)));
    let waiting = Arc::clone(policies);
    let is_seated = tokio::task::spawn_blocking(move || waiting.await_seated());
    let is_seated = is_seated
        .await
        .context("the wait for the policies broke off")?;
    stopped.never_mind();
    if !is_seated {
        tracing::warn!(
            "policies are still being compiled: the daemon starts without them, and they follow"
        );
    }
    Ok(())
}

/// Has the policies stopped where the start is broken off.
struct Stopping(Option<Arc<Supervisor>>);

impl Stopping {
    fn never_mind(mut self) {
        self.0 = None;
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        if let Some(policies) = self.0.take() {
            policies.stop();
            // Its threads are waited for, and whoever drops this must not.
            tokio::task::spawn_blocking(move || drop(policies));
        }
    }
}

fn loading(cache_dir: Option<PathBuf>, deadline: Duration) -> Loading {
    Loading::Child(CompilerSettings {
        worker: CompileWorker {
            program: PathBuf::from("/proc/self/exe"),
            args: vec![COMPILE.into()],
        },
        cache_dir,
        memory_bytes_max: compile_memory_bytes(),
        deadline,
    })
}

fn bundled(limits: GuestLimits) -> Vec<PolicySource> {
    let source = |policy: Bundled| PolicySource {
        origin: bundled_origin(policy.name),
        bytes: policy.bytes.into(),
        config: String::new(),
        limits,
        terms: Default::default(),
    };
    bundled_policies::ALL.into_iter().map(source).collect()
}
