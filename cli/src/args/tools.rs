//! The arguments of what helps an operator besides: `doctor`, `log-level`, `completions`, colours.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::parse_ttl;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LogLevelArgs {
    /// A level (off, error, warn, info, debug, trace), a filter as in `info,device_api_nvml=debug`, or
    /// `reset` for what the daemon was started with. Without it, it is shown
    #[arg(value_name = "LEVEL|reset")]
    pub(crate) level: Option<String>,
    /// After that it is reset by itself, as in 90s, 10m, 2h; 24h at most. Without it, by `reset` or a restart
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl, requires = "level")]
    pub(crate) ttl: Option<Duration>,
}

/// Where to look; the defaults are the daemon's own.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DoctorArgs {
    /// Where the daemon serves /readyz: asked where the socket does not answer
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    pub(crate) health_address: SocketAddr,
    /// Root of the driver: looked through where the daemon does not answer
    #[arg(long, value_name = "PATH", default_value = "/run/nvidia/driver")]
    pub(crate) driver_root: PathBuf,
    /// Directory of state: looked at where the daemon does not answer
    #[arg(long, value_name = "PATH", default_value = "/var/lib/device-api")]
    pub(crate) state_dir: PathBuf,
}
