//! Every flag, with its default and its help: the one table of what can be configured. The same
//! names are environment variables and file keys ([`crate::layers`]).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

use crate::limits;
use crate::units::{Size, parse_duration, parse_size};
use crate::values::{
    Drills, InsecureTcp, LogFormat, Platform, PolarityRow, ProviderTimeout, StoreMode, TcpAddress,
    UnlistedPolicies, XidSet, parse_certificate_identity, parse_id, parse_ip, parse_polarity,
    parse_port, parse_provider_timeout, parse_socket_path, parse_tcp_address, parse_xids,
};

const ABOUT: &str = "Tells consumers on this node which GPUs are healthy, over gRPC";

const LONG_ABOUT: &str = "\
Tells consumers on this node which GPUs are healthy, over gRPC.

Faults that NVML and the kernel log report go through sandboxed policies (Wasm components) and \
become conditions of a GPU. A read that begins after a fault was seen waits until it is judged.

Started without flags, it looks for the NVIDIA driver's library and uses it; without one it serves \
all the same, says so on /readyz, and keeps looking.";

const AFTER_HELP: &str = "\
Each flag can also be set by the environment variable named at it, or by the key of its name, without \
the dashes, in a YAML file (--config). A flag beats the environment, the environment beats the file, the \
file beats the default; a list is replaced, not extended. In the environment, commas part a list.

Exit codes: 0 stopped as asked, 1 failed while starting, running or draining, 2 wrong usage or configuration.";

#[derive(Debug, Parser)]
#[command(name = "device-api-server", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(max_term_width = 110)]
pub(crate) struct Args {
    /// YAML file with any of these settings; an unknown key is refused.
    ///
    /// Neither a variable nor a key of the file.
    #[arg(long, value_name = "PATH", help_heading = "Configuration")]
    pub(crate) config: Option<PathBuf>,

    /// Check the configuration, as it would be used, and RUST_LOG, and end: exit code 0 or 2. Certificates
    /// and keys are not looked at.
    ///
    /// Neither a variable nor a key.
    #[arg(long, help_heading = "Configuration")]
    pub(crate) check_config: bool,

    /// TCP address of the gRPC API; without TLS on loopback only and to read. Port 0 takes a free
    /// one, "" turns it off.
    #[arg(
        long,
        value_name = "IP:PORT",
        help_heading = "API",
        default_value = "127.0.0.1:50051"
    )]
    #[arg(value_parser = parse_tcp_address)]
    pub(crate) grpc_address: TcpAddress,

    /// Unix socket of the gRPC API (0660, its directory 0750). May be given more than once; ""
    /// turns it off.
    ///
    /// A directory that is there has to be root's or the daemon's, with nobody else writing in it, or
    /// sticky. Up to 8 sockets, of 107 bytes at most.
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "API",
        default_value = "/var/run/device-api/device.sock"
    )]
    #[arg(action = ArgAction::Append, value_parser = parse_socket_path)]
    pub(crate) unix_socket: Vec<PathBuf>,

    /// User that may write on the Unix sockets, besides root and the daemon's own. May be given
    /// more than once.
    ///
    /// Up to 64; not 65534, which is anyone.
    #[arg(long, value_name = "UID", help_heading = "API", action = ArgAction::Append)]
    #[arg(value_parser = parse_id)]
    pub(crate) allow_write_uid: Vec<u32>,

    /// Group whose members (by primary or supplementary group) may write on the Unix sockets. May
    /// be given more than once.
    ///
    /// Up to 64; as of when the caller connected.
    #[arg(long, value_name = "GID", help_heading = "API", action = ArgAction::Append)]
    #[arg(value_parser = parse_id)]
    pub(crate) allow_write_gid: Vec<u32>,

    /// Certificate chain (PEM) of the TCP address; with --tls-key, TCP speaks TLS alone. Both are
    /// read again when they change.
    #[arg(long, value_name = "PATH", help_heading = "API")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// Private key (PEM) to --tls-cert.
    #[arg(long, value_name = "PATH", help_heading = "API")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Certificates (PEM) of who vouches for clients: with it, a client without a certificate
    /// from them can't connect over TCP.
    #[arg(long, value_name = "PATH", help_heading = "API")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Identity in a client's certificate that may write over TCP: cn:NAME, dns:NAME or uri:URI,
    /// as in uri:spiffe://example.org/agent. May be given more than once.
    ///
    /// Up to 64.
    #[arg(long, value_name = "IDENTITY", help_heading = "API", action = ArgAction::Append)]
    #[arg(value_parser = parse_certificate_identity)]
    pub(crate) tcp_writers: Vec<String>,

    /// What TCP without TLS may do beyond being read on loopback: be read on any address, or be
    /// written to by whoever reaches it.
    #[arg(long, value_name = "MODE", help_heading = "API", default_value = "off")]
    pub(crate) insecure_tcp: InsecureTcp,

    /// Sets a bound. May be given more than once.
    #[arg(
        long,
        value_name = "NAME=VALUE",
        help_heading = "API",
        alias = "limits"
    )]
    #[arg(action = ArgAction::Append, value_parser = limits::parse, long_help = limits::help())]
    pub(crate) limit: Vec<limits::Setting>,

    /// How long a provider of the upstream dialect may be without any connection before what it
    /// calls healthy turns Unknown, as in uid:1001=30s. May be given more than once.
    ///
    /// 1s to 24h; up to 256.
    #[arg(long, value_name = "IDENTITY=DURATION", help_heading = "Providers")]
    #[arg(action = ArgAction::Append, value_parser = parse_provider_timeout)]
    pub(crate) provider_timeout: Vec<ProviderTimeout>,

    /// Which way round a condition type of the upstream dialect is: PATTERN=true-is-healthy or
    /// PATTERN=true-is-problem; a pattern may have one *. May be given more than once; the first
    /// that matches counts.
    ///
    /// The built-in ones come after them. Up to 256.
    #[arg(long, value_name = "PATTERN=POLARITY", help_heading = "Providers")]
    #[arg(action = ArgAction::Append, value_parser = parse_polarity)]
    pub(crate) polarity: Vec<PolarityRow>,

    /// Whether what is written survives a restart.
    #[arg(
        long,
        value_name = "MODE",
        help_heading = "Store",
        default_value = "durable"
    )]
    pub(crate) store: StoreMode,

    /// Directory of the durable store, for this daemon alone.
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Store",
        default_value = "/var/lib/device-api"
    )]
    pub(crate) state_dir: PathBuf,

    /// File that names the running boot.
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Store",
        default_value = "/proc/sys/kernel/random/boot_id"
    )]
    pub(crate) boot_id_file: PathBuf,

    /// Address that the health and metrics ports listen on. All interfaces, since a kubelet probes
    /// a pod from outside.
    #[arg(
        long,
        value_name = "IP",
        help_heading = "Administration",
        default_value = "0.0.0.0"
    )]
    #[arg(value_parser = parse_ip)]
    pub(crate) admin_address: IpAddr,

    /// Port of /healthz and /readyz; 0 takes a free one and logs it.
    #[arg(
        long,
        value_name = "PORT",
        help_heading = "Administration",
        default_value = "8081"
    )]
    #[arg(value_parser = parse_port)]
    pub(crate) health_port: u16,

    /// Port of /metrics; 0 takes a free one and logs it.
    #[arg(
        long,
        value_name = "PORT",
        help_heading = "Administration",
        default_value = "9090"
    )]
    #[arg(value_parser = parse_port)]
    pub(crate) metrics_port: u16,

    /// How long calls under way may take to end after SIGTERM or SIGINT; a second signal does not
    /// wait.
    ///
    /// 10m at most.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "Administration",
        default_value = "10s"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) shutdown_timeout: Duration,

    /// Form of the log, which goes to standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        help_heading = "Logging",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,

    /// Log more: -v each step the daemon takes (debug), -vv each signal and call (trace).
    ///
    /// Without it: info (what changed), warn (degraded, but carrying on), error (needs someone).
    /// RUST_LOG is read where this flag is not given. As variable or file key it is a number, 0 to 2.
    #[arg(short, long, help_heading = "Logging", action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Watch this node's GPUs through NVML.
    #[arg(
        long,
        value_name = "BOOL",
        help_heading = "NVML",
        default_value_t = true
    )]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) enable_nvml_provider: bool,

    /// Root of the driver's installation, looked through before the host's own library path.
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "NVML",
        default_value = "/run/nvidia/driver"
    )]
    pub(crate) nvml_driver_root: PathBuf,

    /// XIDs that are dropped when NVML reports them, parted by commas. By default none: what an XID
    /// means is the policies' business.
    ///
    /// The kernel log still tells of them.
    #[arg(
        long,
        value_name = "XIDS",
        help_heading = "NVML",
        default_value = "",
        hide_default_value = true
    )]
    #[arg(value_parser = parse_xids)]
    pub(crate) nvml_ignored_xids: XidSet,

    /// Use this NVML library and no other.
    #[arg(long, value_name = "PATH", help_heading = "NVML")]
    pub(crate) nvml_library: Option<PathBuf>,

    /// How often sensors are read: temperature, power, clocks, utilisation, memory.
    ///
    /// 100ms to 1m.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "NVML",
        default_value = "1s"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) nvml_poll_interval: Duration,

    /// How often what tells of faults is read: recovery action, ECC, row remap, PCIe and NVLink state.
    ///
    /// 100ms to 1m.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "NVML",
        default_value = "1s"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) nvml_fault_interval: Duration,

    /// How often counters that matter as a rate are read: aggregate ECC, PCIe and NVLink errors.
    ///
    /// 100ms to 1h.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "NVML",
        default_value = "5s"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) nvml_counter_interval: Duration,

    /// How often limits are read: temperature thresholds, power limits, the links' best.
    ///
    /// 100ms to 1h.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "NVML",
        default_value = "1m"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) nvml_limit_interval: Duration,

    /// How often the inventory is taken again: MIG instances, fabric, GPUs that were put in.
    ///
    /// 100ms to 1h.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "NVML",
        default_value = "10s"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) nvml_inventory_interval: Duration,

    /// How long what was read last stands once the driver is let go of (devicectl nvml release); then the
    /// GPUs are Unknown.
    ///
    /// 100ms to 1h.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "NVML",
        default_value = "1m"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) nvml_stale_after: Duration,

    /// Directory of policies (*.wasm), beside the bundled ones; one of the same name replaces a
    /// bundled one.
    ///
    /// It must be there.
    #[arg(long, value_name = "PATH", help_heading = "Policies")]
    pub(crate) policy_dir: Option<PathBuf>,

    /// YAML file that says how each policy is run: mode, pin, fallback, limits, grants, configuration. By
    /// default policies.yaml in --policy-dir, where there is one.
    #[arg(long, value_name = "PATH", help_heading = "Policies")]
    pub(crate) policies_file: Option<PathBuf>,

    /// What becomes of a *.wasm in --policy-dir that policies.yaml does not name: it runs with the
    /// defaults, or it is refused.
    #[arg(
        long,
        value_name = "WHAT",
        help_heading = "Policies",
        default_value = "defaults"
    )]
    pub(crate) unlisted_policies: UnlistedPolicies,

    /// Start without WebAssembly: no policy is loaded, and the vendor's class for a fault counts.
    #[arg(
        long,
        value_name = "BOOL",
        help_heading = "Policies",
        default_value_t = false
    )]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) safe_mode: bool,

    /// How long one call of a policy may take.
    ///
    /// 1ms to half of limit `barrier-wait` (25ms).
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "Policies",
        default_value = "5ms"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) policy_deadline: Duration,

    /// Linear memory that one instance of a policy may have.
    ///
    /// 1MiB to 256MiB.
    #[arg(
        long,
        value_name = "SIZE",
        help_heading = "Policies",
        default_value = "16MiB"
    )]
    #[arg(value_parser = parse_size)]
    pub(crate) policy_memory: Size,

    /// Kernel log to read XIDs from: /dev/kmsg, a file or a FIFO. Off by default.
    ///
    /// Read from its beginning.
    #[arg(long, value_name = "PATH", help_heading = "Kernel log")]
    pub(crate) kmsg_path: Option<PathBuf>,

    /// Everything read from --kmsg-path is a drill, not a real fault.
    #[arg(
        long,
        value_name = "BOOL",
        help_heading = "Kernel log",
        default_value_t = false
    )]
    #[arg(num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub(crate) kmsg_drill: bool,

    /// Whether injected and simulated faults only show (report) or change health too (enforce).
    #[arg(
        long,
        value_name = "MODE",
        help_heading = "Health",
        default_value = "report"
    )]
    pub(crate) drills: Drills,

    /// What the node is: on bare metal, the advice to restart the VM reads RESTART_BM.
    #[arg(
        long,
        value_name = "KIND",
        help_heading = "Health",
        default_value = "bare-metal"
    )]
    pub(crate) platform: Platform,
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "chart_tests.rs"]
mod chart;
