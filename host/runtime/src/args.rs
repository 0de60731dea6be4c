//! Every flag, with its default and its help: the one table of what can be configured. The same
//! names are environment variables and file keys ([`crate::layers`]).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use device_api_core::limits::SOCKET_PATH_BYTES_MAX;

use crate::units::{Size, parse_duration, parse_size};

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
    #[arg(long, value_name = "PATH", help_heading = "Configuration")]
    pub(crate) config: Option<PathBuf>,

    /// TCP address of the gRPC API, read-only and without TLS; port 0 takes a free one, "" turns
    /// it off.
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
    #[arg(long, value_name = "UID", help_heading = "API", action = ArgAction::Append)]
    #[arg(value_parser = parse_id)]
    pub(crate) allow_write_uid: Vec<u32>,

    /// Group whose members may write on the Unix sockets. May be given more than once.
    #[arg(long, value_name = "GID", help_heading = "API", action = ArgAction::Append)]
    #[arg(value_parser = parse_id)]
    pub(crate) allow_write_gid: Vec<u32>,

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

    /// How often readings (temperature, ECC counters …) are taken.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "NVML",
        default_value = "1s"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) nvml_poll_interval: Duration,

    /// Directory of policies (*.wasm), beside the bundled ones; one of the same name replaces a
    /// bundled one.
    #[arg(long, value_name = "PATH", help_heading = "Policies")]
    pub(crate) policy_dir: Option<PathBuf>,

    /// How long one call of a policy may take.
    #[arg(
        long,
        value_name = "DURATION",
        help_heading = "Policies",
        default_value = "5ms"
    )]
    #[arg(value_parser = parse_duration)]
    pub(crate) policy_deadline: Duration,

    /// Linear memory that one instance of a policy may have.
    #[arg(
        long,
        value_name = "SIZE",
        help_heading = "Policies",
        default_value = "16MiB"
    )]
    #[arg(value_parser = parse_size)]
    pub(crate) policy_memory: Size,

    /// Kernel log to read XIDs from: /dev/kmsg, a file or a FIFO. Off by default.
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

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line for people, coloured on a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// What injected and simulated faults may do (design N8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Drills {
    /// They show, marked as drills, and change no health.
    Report,
    /// They count like real ones.
    Enforce,
}

/// What the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Platform {
    BareMetal,
    Vm,
}

/// A TCP address, or the wish for none. (A plain `Option` would mean "not given" to the parser.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpAddress {
    Off,
    At(SocketAddr),
}

/// A set of XID numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct XidSet(pub(crate) BTreeSet<u64>);

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "expected a port number, 0 to 65535".to_owned())
}

fn parse_id(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "expected a number, as `id` tells it, not a name".to_owned())
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        "expected an IP address of this machine, as in 0.0.0.0 or 127.0.0.1".to_owned()
    })
}

fn parse_tcp_address(text: &str) -> Result<TcpAddress, String> {
    if text.is_empty() {
        return Ok(TcpAddress::Off);
    }
    let address = text.parse().map_err(|_| {
        "expected an IP address and a port, as in 127.0.0.1:50051, or \"\" for none".to_owned()
    })?;
    Ok(TcpAddress::At(address))
}

/// The empty path stands for none; [`crate::config`] leaves it out.
fn parse_socket_path(text: &str) -> Result<PathBuf, String> {
    if text.len() > SOCKET_PATH_BYTES_MAX {
        let len = text.len();
        return Err(format!(
            "{len} bytes long, and the system allows {SOCKET_PATH_BYTES_MAX}; give a shorter path"
        ));
    }
    if text.contains('\0') {
        return Err("a path holds no NUL".to_owned());
    }
    Ok(PathBuf::from(text))
}

fn parse_xids(text: &str) -> Result<XidSet, String> {
    let number = |part: &str| {
        part.trim()
            .parse()
            .map_err(|_| format!("{:?} is no XID; expected numbers, as in 43,45", part.trim()))
    };
    let parts = text.split(',').filter(|_| !text.trim().is_empty());
    parts.map(number).collect::<Result<_, _>>().map(XidSet)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_table_of_flags_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_heading_and_help() {
        for arg in Args::command().get_arguments() {
            assert!(arg.get_help().is_some(), "{} has no help", arg.get_id());
            assert!(
                arg.get_help_heading().is_some(),
                "{} has no heading",
                arg.get_id()
            );
        }
    }

    #[test]
    fn defaults_are_those_that_the_rooms_have() {
        let args = Args::parse_from(["device-api-server"]);
        assert_eq!(
            args.nvml_driver_root,
            PathBuf::from(device_api_nvml::DRIVER_ROOT)
        );
        assert_eq!(args.nvml_poll_interval, device_api_nvml::POLL_INTERVAL);
    }

    #[test]
    fn xids_are_read_as_a_list() {
        assert_eq!(
            parse_xids("43, 45,43"),
            Ok(XidSet(BTreeSet::from([43, 45])))
        );
        assert_eq!(parse_xids(""), Ok(XidSet::default()));
        assert!(parse_xids("43,,45").is_err());
        assert!(parse_xids("43,x").unwrap_err().contains("\"x\""));
    }

    #[test]
    fn a_socket_path_fits_the_systems_bound() {
        let longest = "/".repeat(SOCKET_PATH_BYTES_MAX);
        assert!(parse_socket_path(&longest).is_ok());
        assert!(
            parse_socket_path(&format!("{longest}x"))
                .unwrap_err()
                .contains("108")
        );
    }
}
