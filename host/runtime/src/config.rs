//! The configuration as the rooms get it: settings checked against each other, units in the types.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use device_api_core::action::Platform;
use device_api_core::limits::BARRIER_WAIT_MAX;

use crate::args::{self, Args, Drills, LogFormat, TcpAddress};
use crate::layers::{self, LayerError};
use crate::units::Size;

/// A call's deadline is counted in ticks of this; the engine's clock has no finer ones.
const POLICY_DEADLINE_MIN: Duration = Duration::from_millis(1);

/// One page of Wasm memory is 64 KiB; a Rust guest's stack alone is 1 MiB by default.
const POLICY_MEMORY_MIN: Size = Size::mib(1);
/// The engine accepts no more; times `POLICIES_MAX` it is 16 GiB.
const POLICY_MEMORY_MAX: Size = Size::mib(1024);

/// A round of readings takes some milliseconds; more often would keep the driver busy.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Conditions are judged over seconds; rarer readings would judge the past.
const POLL_INTERVAL_MAX: Duration = Duration::from_mins(1);

/// Longer than any grace period that a kubelet gives by default (30 s), by far.
const SHUTDOWN_TIMEOUT_MAX: Duration = Duration::from_mins(10);

/// Unix sockets. Each dialect's clients look at a path or two.
const UNIX_SOCKETS_MAX: usize = 8;
/// Users and groups that may write: one per agent on a node.
const WRITERS_MAX: usize = 64;

/// The daemon's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) api: ApiConfig,
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

/// Where the gRPC API listens, and who may write. At least one of both kinds of address is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiConfig {
    pub(crate) tcp: Option<SocketAddr>,
    pub(crate) unix_sockets: Vec<PathBuf>,
    pub(crate) writers_uid: Vec<u32>,
    pub(crate) writers_gid: Vec<u32>,
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
    pub(crate) poll_interval: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyConfig {
    /// A directory that was there when the daemon started.
    pub(crate) dir: Option<PathBuf>,
    /// Of one call; below `BARRIER_WAIT_MAX`.
    pub(crate) deadline: Duration,
    pub(crate) memory_bytes_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KmsgConfig {
    pub(crate) path: PathBuf,
    /// All that is read is a drill.
    pub(crate) drill: bool,
}

/// Why the daemon does not start with this configuration; `--help` and `--version` among the reasons.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(
        "--grpc-address and --unix-socket are both turned off; give one of them, or nobody can ask"
    )]
    NothingToServe,
    #[error("--unix-socket {path:?} is given twice; give each path once")]
    SocketTwice { path: PathBuf },
    #[error("{flag} is given {count} times; at most {max} are allowed")]
    TooMany {
        flag: &'static str,
        count: usize,
        max: usize,
    },
    #[error(
        "{first} and {second} both listen on port {port}; give one of them another (0 takes a free one)"
    )]
    PortTwice {
        first: &'static str,
        second: &'static str,
        port: u16,
    },
    #[error("{flag} is {value:?}; it must lie between {min:?} and {max:?}")]
    Duration {
        flag: &'static str,
        value: Duration,
        min: Duration,
        max: Duration,
    },
    #[error("--policy-memory is {} bytes; it must lie between {} and {} bytes (16MiB by default)", .value.bytes, POLICY_MEMORY_MIN.bytes, POLICY_MEMORY_MAX.bytes)]
    Memory { value: Size },
    #[error(
        "--policy-dir {path:?} can't be read ({why}); create it, or leave the flag out for the bundled policies alone"
    )]
    PolicyDir { path: PathBuf, why: io::Error },
    #[error(
        "--kmsg-drill without --kmsg-path: there is nothing to read; give the path, or leave the flag out"
    )]
    DrillOfNothing,
}

/// The configuration, and what to log of it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
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
    Ok(Loaded {
        config: Config::new(resolved.args)?,
        effective: serde_json::Value::Object(resolved.effective).to_string(),
        origins: resolved.origins.join(", "),
    })
}

impl Config {
    fn new(args: Args) -> Result<Self, ConfigError> {
        let api = api(&args)?;
        let admin = admin(&args, api.tcp)?;
        let policies = policies(&args)?;
        let kmsg = match (args.kmsg_path, args.kmsg_drill) {
            (Some(path), drill) => Some(KmsgConfig { path, drill }),
            (None, false) => None,
            (None, true) => return Err(ConfigError::DrillOfNothing),
        };
        within(
            "--nvml-poll-interval",
            args.nvml_poll_interval,
            POLL_INTERVAL_MIN,
            POLL_INTERVAL_MAX,
        )?;
        let nvml = args.enable_nvml_provider.then_some(NvmlConfig {
            driver_root: args.nvml_driver_root,
            ignored_xids: args.nvml_ignored_xids.0,
            library: args.nvml_library,
            poll_interval: args.nvml_poll_interval,
        });
        Ok(Self {
            api,
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
                args::Platform::BareMetal => Platform::BareMetal,
                args::Platform::Vm => Platform::VirtualMachine,
            },
        })
    }
}

fn api(args: &Args) -> Result<ApiConfig, ConfigError> {
    let tcp = match args.grpc_address {
        TcpAddress::Off => None,
        TcpAddress::At(address) => Some(address),
    };
    let mut unix_sockets: Vec<PathBuf> = Vec::new();
    for path in args
        .unix_socket
        .iter()
        .filter(|path| !path.as_os_str().is_empty())
    {
        if unix_sockets.contains(path) {
            return Err(ConfigError::SocketTwice { path: path.clone() });
        }
        unix_sockets.push(path.clone());
    }
    if tcp.is_none() && unix_sockets.is_empty() {
        return Err(ConfigError::NothingToServe);
    }
    at_most("--unix-socket", unix_sockets.len(), UNIX_SOCKETS_MAX)?;
    at_most("--allow-write-uid", args.allow_write_uid.len(), WRITERS_MAX)?;
    at_most("--allow-write-gid", args.allow_write_gid.len(), WRITERS_MAX)?;
    Ok(ApiConfig {
        tcp,
        unix_sockets,
        writers_uid: args.allow_write_uid.clone(),
        writers_gid: args.allow_write_gid.clone(),
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

fn policies(args: &Args) -> Result<PolicyConfig, ConfigError> {
    // A call must end, and its fallback be written, before readers stop waiting (design C3).
    within(
        "--policy-deadline",
        args.policy_deadline,
        POLICY_DEADLINE_MIN,
        BARRIER_WAIT_MAX / 2,
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
    Ok(PolicyConfig {
        dir: args.policy_dir.clone(),
        deadline: args.policy_deadline,
        memory_bytes_max,
    })
}

fn at_most(flag: &'static str, count: usize, max: usize) -> Result<(), ConfigError> {
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
