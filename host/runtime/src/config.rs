//! The configuration as the rooms get it: settings checked against each other, units in the types.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use device_api_core::action::Platform;
use device_api_core::condition::Polarity;
use device_api_core::limits::Bounds;

use crate::args::Args;
pub(crate) use crate::config_api::ApiConfig;
use crate::config_api::api;
pub(crate) use crate::config_error::ConfigError;
use crate::layers;
use crate::limits;
use crate::units::Size;
use crate::values::{self, Drills, LogFormat, StoreMode};

/// A call's deadline is counted in ticks of this; the engine's clock has no finer ones.
const POLICY_DEADLINE_MIN: Duration = Duration::from_millis(1);

/// One page of Wasm memory is 64 KiB; a Rust guest's stack alone is 1 MiB by default.
pub(crate) const POLICY_MEMORY_MIN: Size = Size::mib(1);
/// The engine accepts no more: one instruction, which no deadline interrupts, could fill it.
pub(crate) const POLICY_MEMORY_MAX: Size = Size::mib(256);

/// A round of readings takes some milliseconds; more often would keep the driver busy.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Conditions are judged over seconds; rarer readings would judge the past.
const POLL_INTERVAL_MAX: Duration = Duration::from_mins(1);
/// Counters are judged over minutes, and what hardly ever changes is looked at twice a shift.
const SLOW_INTERVAL_MAX: Duration = Duration::from_hours(1);

/// Longer than any grace period that a kubelet gives by default (30 s), by far.
const SHUTDOWN_TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// Rows of a site's own about providers: some for each of the agents on a node.
const PROVIDER_ROWS_MAX: usize = 256;
/// A provider that restarts is back within a second or two.
const PROVIDER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// As long as a lease may be.
const PROVIDER_TIMEOUT_MAX: Duration = device_api_core::limits::LEASE_MAX;

/// The daemon's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) api: ApiConfig,
    pub(crate) limits: Bounds,
    pub(crate) providers: ProviderConfig,
    pub(crate) store: StoreConfig,
    pub(crate) admin: AdminConfig,
    pub(crate) log: LogConfig,
    /// `None`: turned off.
    pub(crate) nvml: Option<NvmlConfig>,
    pub(crate) policies: PolicyConfig,
    /// `None`: the kernel log is not read.
    pub(crate) kmsg: Option<KmsgConfig>,
    pub(crate) drills: Drills,
    pub(crate) platform: Platform,
}

/// What a site says of providers that can't say it themselves: those of the upstream dialect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProviderConfig {
    /// How long an identity may be without a connection (design P2); each identity once.
    pub(crate) timeouts: Vec<(Arc<str>, Duration)>,
    /// Which way round condition types are, before the built-in rows (design P3).
    pub(crate) polarities: Vec<(String, Polarity)>,
}

/// Where what is written survives (design C6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreConfig {
    pub(crate) mode: StoreMode,
    /// Made by the store where it is missing; of no meaning in memory mode.
    pub(crate) dir: PathBuf,
    /// Whose content names the running boot (design C8).
    pub(crate) boot_id_file: PathBuf,
}

/// Where health and metrics are served. Port 0: a free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminConfig {
    pub(crate) address: IpAddr,
    pub(crate) health_port: u16,
    pub(crate) metrics_port: u16,
    pub(crate) shutdown_timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogConfig {
    pub(crate) format: LogFormat,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NvmlConfig {
    pub(crate) driver_root: PathBuf,
    pub(crate) ignored_xids: BTreeSet<u64>,
    /// This library and no other.
    pub(crate) library: Option<PathBuf>,
    pub(crate) intervals: NvmlIntervals,
}

/// How often each class of docs/readings.md is read, and the inventory taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NvmlIntervals {
    pub(crate) sensors: Duration,
    pub(crate) faults: Duration,
    pub(crate) counters: Duration,
    pub(crate) limits: Duration,
    pub(crate) inventory: Duration,
    /// How long what was read last stands once the driver is let go of.
    pub(crate) stale_after: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyConfig {
    /// A directory that was there when the daemon started.
    pub(crate) dir: Option<PathBuf>,
    /// `None`: `policies.yaml` in the directory, where there is one.
    pub(crate) file: Option<PathBuf>,
    pub(crate) unlisted: values::UnlistedPolicies,
    /// No policy is run.
    pub(crate) safe_mode: bool,
    /// Of one call; at most half of `Bounds::barrier_wait`.
    pub(crate) deadline: Duration,
    pub(crate) memory_bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KmsgConfig {
    pub(crate) path: PathBuf,
    /// All that is read is a drill.
    pub(crate) drill: bool,
}

/// The configuration, and what to log of it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The daemon is to end here.
    pub(crate) check_only: bool,
    /// Every setting in force, as one JSON object with the file's keys.
    pub(crate) effective: String,
    /// The settings that are no default, and where each comes from.
    pub(crate) origins: String,
}

/// Reads flags, environment and file, and checks what they say.
///
/// # Errors
/// [`ConfigError`], one line that names the flag, variable or key.
pub(crate) fn load(
    argv: &[OsString],
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Loaded, ConfigError> {
    let resolved = layers::resolve(argv, environment)?;
    let check_only = resolved.args.check_config;
    let config = Config::new(resolved.args).map_err(|error| {
        match resolved.sources.set_by(&error.to_string()) {
            Some(by) => ConfigError::SetBy {
                error: Box::new(error),
                by,
            },
            None => error,
        }
    })?;
    Ok(Loaded {
        check_only,
        config,
        effective: serde_json::Value::Object(resolved.effective).to_string(),
        origins: resolved.origins.join(", "),
    })
}

impl Config {
    fn new(args: Args) -> Result<Self, ConfigError> {
        let api = api(&args)?;
        let admin = admin(&args, api.tcp)?;
        let limits = limits::bounds(&args.limit)?;
        let policies = policies(&args, &limits)?;
        let providers = providers(&args)?;
        let store = store(&args)?;
        let intervals = intervals(&args)?;
        let kmsg = match (args.kmsg_path, args.kmsg_drill) {
            (Some(path), drill) => Some(KmsgConfig { path, drill }),
            (None, false) => None,
            (None, true) => return Err(ConfigError::DrillOfNothing),
        };
        let nvml = args.enable_nvml_provider.then_some(NvmlConfig {
            driver_root: args.nvml_driver_root,
            ignored_xids: args.nvml_ignored_xids.0,
            library: args.nvml_library,
            intervals,
        });
        Ok(Self {
            api,
            limits,
            providers,
            store,
            admin,
            log: LogConfig {
                format: args.log_format,
                verbose: args.verbose,
            },
            nvml,
            policies,
            kmsg,
            drills: args.drills,
            platform: match args.platform {
                values::Platform::BareMetal => Platform::BareMetal,
                values::Platform::Vm => Platform::VirtualMachine,
            },
        })
    }
}

fn providers(args: &Args) -> Result<ProviderConfig, ConfigError> {
    at_most(
        "--provider-timeout",
        args.provider_timeout.len(),
        PROVIDER_ROWS_MAX,
    )?;
    at_most("--polarity", args.polarity.len(), PROVIDER_ROWS_MAX)?;
    let mut timeouts: Vec<(Arc<str>, Duration)> = Vec::new();
    for row in &args.provider_timeout {
        within(
            "--provider-timeout",
            row.timeout,
            PROVIDER_TIMEOUT_MIN,
            PROVIDER_TIMEOUT_MAX,
        )?;
        if timeouts.iter().any(|(other, _)| **other == row.identity) {
            let identity = row.identity.clone();
            return Err(ConfigError::TimeoutTwice { identity });
        }
        timeouts.push((row.identity.as_str().into(), row.timeout));
    }
    let polarities = args.polarity.iter();
    Ok(ProviderConfig {
        timeouts,
        polarities: polarities
            .map(|row| (row.pattern.clone(), row.polarity))
            .collect(),
    })
}

fn store(args: &Args) -> Result<StoreConfig, ConfigError> {
    for (flag, path) in [
        ("--state-dir", &args.state_dir),
        ("--boot-id-file", &args.boot_id_file),
    ] {
        if path.as_os_str().is_empty() {
            return Err(ConfigError::NoPath { flag });
        }
    }
    Ok(StoreConfig {
        mode: args.store,
        dir: args.state_dir.clone(),
        boot_id_file: args.boot_id_file.clone(),
    })
}

fn admin(args: &Args, tcp: Option<SocketAddr>) -> Result<AdminConfig, ConfigError> {
    let health = (
        "--health-port",
        SocketAddr::new(args.admin_address, args.health_port),
    );
    let metrics = (
        "--metrics-port",
        SocketAddr::new(args.admin_address, args.metrics_port),
    );
    different_ports(health, metrics)?;
    if let Some(tcp) = tcp {
        different_ports(("--grpc-address", tcp), health)?;
        different_ports(("--grpc-address", tcp), metrics)?;
    }
    within(
        "--shutdown-timeout",
        args.shutdown_timeout,
        Duration::ZERO,
        SHUTDOWN_TIMEOUT_MAX,
    )?;
    Ok(AdminConfig {
        address: args.admin_address,
        health_port: args.health_port,
        metrics_port: args.metrics_port,
        shutdown_timeout: args.shutdown_timeout,
    })
}

fn policies(args: &Args, limits: &Bounds) -> Result<PolicyConfig, ConfigError> {
    // A call must end, and its fallback be written, before readers stop waiting (design C3).
    within(
        "--policy-deadline",
        args.policy_deadline,
        POLICY_DEADLINE_MIN,
        limits.barrier_wait / 2,
    )?;
    let value = args.policy_memory;
    let memory_bytes_max = (POLICY_MEMORY_MIN..=POLICY_MEMORY_MAX)
        .contains(&value)
        .then(|| usize::try_from(value.bytes).ok())
        .flatten()
        .ok_or(ConfigError::Memory { value })?;
    if let Some(path) = &args.policy_dir {
        // Not there is more likely a wrong path than a directory to come, and bundled policies alone
        // would silently judge instead.
        std::fs::read_dir(path).map_err(|why| ConfigError::PolicyDir {
            path: path.clone(),
            why,
        })?;
    }
    if let Some(path) = &args.policies_file {
        std::fs::File::open(path).map_err(|why| ConfigError::PoliciesFile {
            path: path.clone(),
            why,
        })?;
    }
    Ok(PolicyConfig {
        dir: args.policy_dir.clone(),
        file: args.policies_file.clone(),
        unlisted: args.unlisted_policies,
        safe_mode: args.safe_mode,
        deadline: args.policy_deadline,
        memory_bytes_max,
    })
}

fn intervals(args: &Args) -> Result<NvmlIntervals, ConfigError> {
    let table = [
        (
            "--nvml-poll-interval",
            args.nvml_poll_interval,
            POLL_INTERVAL_MAX,
        ),
        (
            "--nvml-fault-interval",
            args.nvml_fault_interval,
            POLL_INTERVAL_MAX,
        ),
        (
            "--nvml-counter-interval",
            args.nvml_counter_interval,
            SLOW_INTERVAL_MAX,
        ),
        (
            "--nvml-limit-interval",
            args.nvml_limit_interval,
            SLOW_INTERVAL_MAX,
        ),
        (
            "--nvml-inventory-interval",
            args.nvml_inventory_interval,
            SLOW_INTERVAL_MAX,
        ),
        (
            "--nvml-stale-after",
            args.nvml_stale_after,
            SLOW_INTERVAL_MAX,
        ),
    ];
    for (flag, value, max) in table {
        within(flag, value, POLL_INTERVAL_MIN, max)?;
    }
    Ok(NvmlIntervals {
        sensors: args.nvml_poll_interval,
        faults: args.nvml_fault_interval,
        counters: args.nvml_counter_interval,
        limits: args.nvml_limit_interval,
        inventory: args.nvml_inventory_interval,
        stale_after: args.nvml_stale_after,
    })
}

pub(crate) fn at_most(flag: &'static str, count: usize, max: usize) -> Result<(), ConfigError> {
    if count > max {
        Err(ConfigError::TooMany { flag, count, max })
    } else {
        Ok(())
    }
}

fn within(
    flag: &'static str,
    value: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::Duration {
            flag,
            value,
            min,
            max,
        })
    }
}

type Listen = (&'static str, SocketAddr);

fn different_ports((first, a): Listen, (second, b): Listen) -> Result<(), ConfigError> {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    if overlap && a.port() == b.port() && a.port() != 0 {
        return Err(ConfigError::PortTwice {
            first,
            second,
            port: a.port(),
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
