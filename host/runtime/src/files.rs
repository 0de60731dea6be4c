//! How many files the process may have open, of which connections are the most.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files besides connections of the API: 2 × 64 connections of the admin ports, the libraries and
/// devices of NVML (some 10 a GPU), sockets, store, policies, log.
const RESERVE: u64 = 256;

/// Connections below which nobody is served well; the bound is not cut below it.
const CONNECTIONS_MIN: usize = 4;

/// How many connections there may be, where `asked` are wanted: the limit of open files is raised as
/// far as needed and allowed, and what it does not hold is told of and cut.
pub(crate) fn connections(asked: usize) -> usize {
    let wanted = u64::try_from(asked)
        .unwrap_or(u64::MAX)
        .saturating_add(RESERVE);
    let limit = raise(wanted);
    let allowed = within(asked, limit);
    if allowed < asked {
        tracing::warn!(
            files = limit,
            asked,
            connections = allowed,
            "the limit of open files allows fewer connections; raise it (ulimit -n, LimitNOFILE) or lower --limit connections"
        );
    }
    allowed
}

/// Raises the soft limit to `wanted`, or as far as the hard one goes; never lowers it. Returns what
/// is in force; `None`: no limit.
fn raise(wanted: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    let target = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if target <= current {
        return Some(current);
    }
    let raised = Rlimit {
        current: Some(target),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(target),
        Err(error) => {
            tracing::debug!(%error, target, "the limit of open files can't be raised");
            Some(current)
        }
    }
}

fn within(asked: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return asked };
    let room = usize::try_from(limit.saturating_sub(RESERVE)).unwrap_or(usize::MAX);
    asked.min(room).max(CONNECTIONS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_as_many_as_asked_or_as_fit() {
        assert_eq!(within(4096, None), 4096);
        assert_eq!(within(4096, Some(1 << 20)), 4096);
        assert_eq!(within(4096, Some(1024)), 768);
        assert_eq!(within(4096, Some(100)), CONNECTIONS_MIN);
    }

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let before = getrlimit(Resource::Nofile).current;
        let (Some(before), Some(raised)) = (before, raise(0)) else {
            return;
        };
        assert_eq!(raised, before, "not lowered");
        let wanted = before + 1;
        let after = raise(wanted).expect("limited");
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(after, hard.map_or(wanted, |hard| wanted.min(hard)));
        assert_eq!(getrlimit(Resource::Nofile).current, Some(after));
    }
}
