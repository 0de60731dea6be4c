//! What survives a restart: does the store take writes, and is its directory the daemon's alone.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use device_api_proto::native::{DaemonPartState, GetDaemonStatusResponse};

use super::check::Check;
use super::daemon::part;
use super::place::{Place, ownership, shown};

const DURABLE: &str = "store.durable";
const DIRECTORY: &str = "store.directory";

/// What nobody else should do: the daemon makes it 0750, the chart's init container 0700.
const OTHERS: u32 = 0o027;

pub(super) fn durable(status: &GetDaemonStatusResponse) -> Check {
    let Some(part) = part(status, "store") else {
        return Check::skipped(DURABLE, "the daemon does not tell of its store");
    };
    match part.state() {
        DaemonPartState::Up => Check::ok(DURABLE, part.detail.clone()),
        DaemonPartState::Off => Check::warn(
            DURABLE,
            format!(
                "{}: every GPU is Unknown after a restart, and what was cleared or set aside is forgotten",
                part.detail
            ),
            "have --store=durable (chart: state.type=hostPath), where the node has a disk",
        ),
        DaemonPartState::Degraded | DaemonPartState::Unspecified => Check::fail(
            DURABLE,
            part.detail.clone(),
            format!(
                "make room on the disk (df -h, df -i), or {} writable for uid {}; writes are refused until then",
                status.state_dir, status.uid
            ),
        ),
    }
}

/// `daemon`: the daemon's user, where it was asked.
pub(super) fn directory(place: &Place, path: &Path, daemon: Option<u32>) -> Check {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound && daemon.is_none() => {
            let why = format!("no {} here; the daemon makes it, if it may", shown(path));
            return Check::skipped(DIRECTORY, why);
        }
        Err(error) => {
            let why = format!("cannot look at {} from here: {error}", shown(path));
            return Check::skipped(DIRECTORY, why);
        }
    };
    let what = format!(
        "{} is {}",
        shown(path),
        ownership((meta.uid(), meta.gid(), meta.mode()))
    );
    if let Some(daemon) = daemon
        && daemon != 0
        && meta.uid() != daemon
    {
        return Check::fail(
            DIRECTORY,
            format!("{what}, and the daemon is uid {daemon}"),
            format!(
                "devicectl node own --owner {daemon}:GID --state-dir {} (chart: ownDirectories=true)",
                shown(path)
            ),
        );
    }
    if meta.mode() & OTHERS != 0 {
        return Check::warn(
            DIRECTORY,
            format!("{what}: others may look into it, or write"),
            format!("chmod 0700 {}", shown(path)),
        );
    }
    let is_root = place.uid == 0;
    let by = if is_root {
        ""
    } else {
        ", as far as we may look"
    };
    Check::ok(DIRECTORY, format!("{what}{by}"))
}
