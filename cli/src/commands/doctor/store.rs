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

/// How the daemon begins to tell of a store that takes writes.
const DURABLE_IN: &str = "durable in ";

/// What nobody else should do: the daemon, and the chart's init container, make it 0700; its group may have been let in.
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
        // It takes writes, and not all that it should hold is in it.
        DaemonPartState::Degraded | DaemonPartState::Unspecified
            if part.detail.starts_with(DURABLE_IN) =>
        {
            let fix = "look at the GPUs anew, as to what it names (the kernel log, the jobs' logs), and see the daemon's log; a file that was set aside may be deleted";
            Check::warn(DURABLE, part.detail.clone(), fix)
        }
        DaemonPartState::Degraded | DaemonPartState::Unspecified
            if part.detail.contains("no regular file") =>
        {
            let fix = "move away what is there under that name, then restart the daemon";
            Check::fail(DURABLE, part.detail.clone(), fix)
        }
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

#[cfg(test)]
mod tests {
    use device_api_proto::native::DaemonPart;

    use super::super::check::State;
    use super::*;

    #[track_caller]
    fn check(state: DaemonPartState, detail: &str, expected: State, fix: &str) {
        let status = GetDaemonStatusResponse {
            state_dir: "/state".to_owned(),
            parts: vec![DaemonPart {
                name: "store".to_owned(),
                state: state.into(),
                detail: detail.to_owned(),
            }],
            ..Default::default()
        };
        let said = durable(&status);
        assert_eq!(said.state, expected, "{said:?}");
        assert!(said.fix.contains(fix), "{said:?}");
    }

    #[test]
    fn the_remedy_of_a_store_is_that_of_what_is_wrong_with_it() {
        use DaemonPartState::{Degraded, Off, Up};
        check(Up, "durable in /state", State::Ok, "");
        check(Off, "in memory", State::Warn, "--store=durable");
        let full = "writing failed: No space left on device";
        check(Degraded, full, State::Fail, "make room on the disk");
        let strange = "opening /state/store.redb failed: it is no regular file";
        check(Degraded, strange, State::Fail, "move away what is there");
        let forgotten = "durable in /state, but not all: the old state could not be used";
        check(Degraded, forgotten, State::Warn, "look at the GPUs anew");
        // As the daemon says it.
        let words = include_str!("../../../../host/runtime/src/state.rs");
        assert!(words.contains(DURABLE_IN));
    }
}
