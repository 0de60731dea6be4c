//! The command line.

mod tools;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use rustix::process::{Gid, Uid};

pub(crate) use self::tools::{Color, DoctorArgs, LogLevelArgs, Shell};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; of doctor: no check failed, though some may warn
  1  failed: no such GPU or policy, the daemon refused, or a check of doctor failed
  2  wrong usage
  3  cannot connect to the daemon (of doctor that is a failed check)";

/// Shows the GPUs of this node: what they are, whether they are healthy, and why.
#[derive(Debug, Parser)]
#[command(name = "devicectl", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Socket of device-api-server; without it, what DEVICE_API_SOCKET says
    // Not clap's own `env`: where the variable is set, each usage line would have the flag as if it were wanted.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value_os_t = socket_of_environment()
    )]
    pub(crate) socket: PathBuf,

    /// How to print: tables for people, json and yaml for programs
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,

    /// When to use colours: on a terminal unless NO_COLOR is set, always, or never
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub(crate) color: Color,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The daemon's own default where the variable is not set, or is empty.
fn socket_of_environment() -> PathBuf {
    let set = std::env::var_os("DEVICE_API_SOCKET").filter(|path| !path.is_empty());
    set.map_or_else(|| "/var/run/device-api/device.sock".into(), PathBuf::from)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// JSON; `watch` prints one object a line
    Json,
    /// YAML; `watch` prints one document an event
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List GPUs
    #[command(visible_alias = "list")]
    Get {
        kind: Kind,
        /// Only these (see `describe` for how a GPU may be named)
        names: Vec<String>,
        #[command(flatten)]
        selectors: Selectors,
    },
    /// Show all that is known of one GPU: facts, conditions, evidence, what clears them
    Describe {
        kind: Kind,
        /// Name, NVML index, PCI address, or the beginning of the UUID: with `GPU-` or `MIG-`, or 4 digits at least
        name: String,
    },
    /// Say what is wrong with one GPU: which rule found it, on what evidence, what clears it, what to type
    #[command(allow_missing_positional = true)]
    Explain {
        kind: Option<Kind>,
        /// As for `describe`
        name: String,
    },
    /// One GPU: explain, describe, clear, report-reset, delete
    Gpu {
        #[command(subcommand)]
        command: GpuCommand,
    },
    /// Print every change as it happens, until interrupted; outlives a restart of the daemon
    Watch {
        #[arg(default_value = "gpus")]
        kind: Kind,
        #[command(flatten)]
        selectors: Selectors,
        /// Every change for itself; ends with exit code 1 where one was missed. Without it, changes that
        /// come faster than they are read merge
        #[arg(long)]
        exact: bool,
        /// Also print how far the daemon has told all there is to tell
        #[arg(long)]
        bookmarks: bool,
    },
    /// Show what judges faults and how it fares; reload, quarantine, release, accept, pause, resume
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// List the faults of this node, newest first, however many signals from however many sources told of each
    Incidents {
        /// Only those of this GPU, named as for `describe`
        #[arg(long, value_name = "NAME")]
        gpu: Option<String>,
        /// Also those that are over
        #[arg(long)]
        all: bool,
    },
    /// Show how NVML is; let go of the driver for a reset or an upgrade; take it up again
    Nvml {
        #[command(subcommand)]
        command: NvmlCommand,
    },
    /// Show who writes conditions, and release the types of one that does not come back
    Provider {
        #[command(subcommand)]
        command: ProviderCommand,
    },
    /// Look for the usual misconfigurations, and say what to do; changes nothing, and needs no daemon
    Doctor(DoctorArgs),
    /// Show which lines the daemon's log takes, or have it take others; the audit log stays
    LogLevel(LogLevelArgs),
    /// Print what a shell is to source, so that Tab knows the commands
    Completions { shell: Shell },
    /// Prepare this node for the daemon; needs no daemon
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Give directories to the daemon's user; what is right already is left as it is. Needs root with CAP_CHOWN
    #[command(group(clap::ArgGroup::new("directories").required(true).multiple(true)))]
    Own {
        /// To whom, in numbers
        #[arg(long, value_name = "UID:GID")]
        owner: Owner,
        /// Directory of sockets: mode 0750. May be given more than once
        #[arg(long, value_name = "DIR", group = "directories")]
        socket_dir: Vec<PathBuf>,
        /// Directory of state: mode 0700, and what is in it goes with it. May be given more than once
        #[arg(long, value_name = "DIR", group = "directories")]
        state_dir: Vec<PathBuf>,
    },
}

/// A user and a group, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    pub(crate) fn ids(self) -> (Uid, Gid) {
        (Uid::from_raw(self.uid), Gid::from_raw(self.gid))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for Owner {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        /// To the kernel it means "leave it as it is".
        const NOBODY_AT_ALL: u32 = u32::MAX;
        let id = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            let id: Option<u32> = is_number.then(|| text.parse().ok()).flatten();
            id.filter(|id| *id != NOBODY_AT_ALL)
        };
        let both = text.split_once(':');
        both.and_then(|(uid, gid)| {
            Some(Self {
                uid: id(uid)?,
                gid: id(gid)?,
            })
        })
        .ok_or("expected two numbers, as in 65534:65534")
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum GpuCommand {
    /// Say what is wrong with it: as `explain`
    Explain {
        /// As for `describe`
        name: String,
    },
    /// Show all that is known of it: as `describe gpu`
    Describe {
        /// As for `describe`
        name: String,
    },
    /// Say that a problem of it is over, where nothing else clears it; what is seen again comes back
    Clear {
        /// As for `describe`
        name: String,
        /// Type of the condition, as `gpu explain` shows it
        condition: String,
        /// Why it is over, for those who find it so
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Tell that it was reset, as NVML need not show it; right after the reset, before `nvml attach`
    ReportReset {
        /// As for `describe`; of a MIG instance, its GPU
        name: String,
        /// How that is known, for those who find it well again
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Delete the entry of one that is gone and not to come back; what stood against it is kept, should it
    Delete {
        /// As for `describe`; one that is gone has neither index nor address
        name: String,
        /// Don't ask, where it is not known to be gone
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NvmlCommand {
    /// Let go of the driver; exit code 1 where a call hangs in it
    Release {
        /// What for
        #[arg(long = "for", value_enum, value_name = "WHAT")]
        purpose: Purpose,
        /// After that it is taken up again by itself, as in 90s, 10m, 2h; 24h at most
        #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
        ttl: Duration,
    },
    /// Take the driver up again; exit code 1 where NVML is not in use then
    Attach {
        /// Don't wait until it is in use, or can't be
        #[arg(long)]
        no_wait: bool,
    },
    /// Show how NVML is, and which calls hang
    Status,
}

/// What the driver is let go of for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Purpose {
    /// A GPU reset: no handle may be open
    Reset,
    /// Another driver is to be loaded
    Upgrade,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let positive = parsed.ok().and_then(|ttl| Duration::try_from(ttl).ok());
    positive
        .filter(|ttl| !ttl.is_zero())
        .ok_or_else(|| "no time; as in 90s, 10m or 2h".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// List the policies, what they have done, and what waits for you
    List,
    /// Show all that is known of one policy: versions, limits, latest failures, what a held one judges otherwise
    Describe {
        /// As `policy list` shows it
        name: String,
    },
    /// Have the daemon look at its policies' directory now; exit code 1 where something was refused
    Reload,
    /// Set the version that is asked aside, over restarts too; the last good one takes over
    Quarantine {
        /// As `policy list` shows it
        name: String,
        /// Why, for those who find it so
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Only this version, by its digest or the first 12 digits of it at least. Without it, the one in use
        #[arg(long, default_value = "", hide_default_value = true)]
        digest: String,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let a quarantined version be tried again
    Release {
        /// As `policy list` shows it
        name: String,
        /// Which version, by its digest or the first 12 digits of it at least. Without it, all that are quarantined
        #[arg(long, default_value = "", hide_default_value = true)]
        digest: String,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let a held version in
    Accept {
        /// As `policy list` shows it
        name: String,
        /// Which version you have looked at, by its digest or the first 12 digits of it at least
        #[arg(long)]
        digest: String,
    },
    /// Have a policy not asked until it is resumed, over restarts too; the fallback applies to its signals
    Pause {
        /// As `policy list` shows it
        name: String,
        /// Why, for those who find it so
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
    /// End a pause
    Resume {
        /// As `policy list` shows it
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// List the providers that own a condition type or hold a lease
    List,
    /// Remove a provider's conditions from every GPU and let others own their types
    Forget {
        /// As `provider list` shows it
        name: String,
        /// Don't ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Which GPUs: all of it must hold.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selectors {
    /// By labels: `zone=a`, `zone!=a`, `zone in (a, b)`, `zone notin (a, b)`, `zone`, `!zone`, joined by commas
    #[arg(
        short = 'l',
        long = "selector",
        value_name = "LABELS",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) labels: String,
    /// By fields: `status.health=Degraded`, `spec.product!=NVIDIA L4`, … joined by commas
    #[arg(
        long = "field-selector",
        value_name = "FIELDS",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) fields: String,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[value(alias = "gpu")]
    Gpus,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["devicectl", "watch", "-o", "json", "--socket", "/tmp/s"])
            .unwrap();
        assert_eq!(
            (args.output, args.socket),
            (Format::Json, PathBuf::from("/tmp/s"))
        );
        let args = Args::try_parse_from(["devicectl", "describe", "gpu", "0"]).unwrap();
        assert!(matches!(args.command, Command::Describe { name, .. } if name == "0"));
        let args =
            Args::try_parse_from(["devicectl", "list", "gpus", "-l", "zone in (a)"]).unwrap();
        assert!(
            matches!(args.command, Command::Get { selectors, .. } if selectors.labels == "zone in (a)")
        );
        for explain in [&["explain", "0"][..], &["explain", "gpu", "0"]] {
            let args = Args::try_parse_from([&["devicectl"], explain].concat()).unwrap();
            assert!(matches!(args.command, Command::Explain { name, .. } if name == "0"));
        }
        assert_eq!(
            Args::try_parse_from(["devicectl", "policy", "accept", "p"])
                .unwrap_err()
                .exit_code(),
            2,
            "a version is named by whoever lets it in"
        );
        let args = ["devicectl", "nvml", "release", "--for=reset", "--ttl=10m"];
        let args = Args::try_parse_from(args).unwrap();
        let Command::Nvml { command } = args.command else {
            panic!("{args:?}")
        };
        assert!(
            matches!(command, NvmlCommand::Release { purpose: Purpose::Reset, ttl } if ttl.as_secs() == 600),
            "{command:?}"
        );
        for refused in [
            &["nvml", "release", "--for=reset"][..],
            &["nvml", "release", "--for=reset", "--ttl=0s"],
            &["nvml", "release", "--for=reset", "--ttl=-1m"],
            &["nvml", "release", "--for=reset", "--ttl=soon"],
            &["nvml", "release", "--for=fun", "--ttl=1m"],
            &["gpu", "clear", "0", "XidCriticalError"],
            &["gpu", "report-reset", "0"],
        ] {
            let refused = Args::try_parse_from([&["devicectl"], refused].concat());
            assert_eq!(refused.unwrap_err().exit_code(), 2);
        }
        assert_eq!(
            Args::try_parse_from(["devicectl", "get", "cpus"])
                .unwrap_err()
                .exit_code(),
            2
        );
    }
}
