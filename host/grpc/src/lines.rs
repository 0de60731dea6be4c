//! How many lines of the log those who are turned away can cause, since they decide how often: so many
//! for each in a window. Those left out are counted, and that is said: in the next line of the same, or, if
//! there is none, when the window is over.
//!
//! Uids, certificates and networks have a table each, so that whoever has many of one (a site's worth of
//! addresses, say) takes no room of the others.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::time::Instant;

use crate::limits::{AUDIT_IDENTITIES, AUDIT_LINES, AUDIT_WINDOW};
use crate::peer::{Peer, Share};

const KINDS: usize = 3;
/// Past it, those of a kind that are new count as one.
const OF_A_KIND: usize = AUDIT_IDENTITIES / KINDS;

/// Who is told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Share(Share),
    /// A name in a certificate that was verified.
    Certificate(Arc<str>),
}

impl Key {
    /// Of a peer that goes by `identity`.
    pub(crate) fn of(peer: &Peer, identity: &Arc<str>) -> Self {
        match peer {
            Peer::Tls { names, .. } if !names.is_empty() => Self::Certificate(identity.clone()),
            Peer::Unix { .. } | Peer::Unidentified | Peer::Tcp { .. } | Peer::Tls { .. } => {
                Self::Share(peer.share())
            }
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Share(Share::Uid(_)) => Kind::Uids,
            Self::Certificate(_) => Kind::Certificates,
            Self::Share(Share::Network(_) | Share::Nobody) => Kind::Networks,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => share.fmt(f),
            Self::Certificate(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Uids,
    Certificates,
    Networks,
}

impl Kind {
    const ALL: [Self; KINDS] = [Self::Uids, Self::Certificates, Self::Networks];

    fn others(self) -> &'static str {
        match self {
            Self::Uids => "other uids",
            Self::Certificates => "other certificates",
            Self::Networks => "other networks",
        }
    }
}

/// What one has had of lines since.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Window {
    fn new(since: Instant) -> Self {
        let (lines, left_out) = (0, 0);
        Self {
            since,
            lines,
            left_out,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= AUDIT_WINDOW
    }

    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.is_over(now) {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines < AUDIT_LINES {
            self.lines += 1;
            Some(mem::take(&mut self.left_out))
        } else {
            self.left_out += 1;
            None
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Key, Window>,
    others: Option<Window>,
}

/// Lines that are still to be written of what was left out: whose, and how many.
type LeftOut = Vec<(String, u64)>;

impl Table {
    /// Whether there is a line; then how many were left out before it.
    fn admit(&mut self, key: &Key, now: Instant, told: &mut LeftOut) -> Option<u64> {
        if let Some(window) = self.known.get_mut(key) {
            return window.admit(now);
        }
        if self.known.len() >= OF_A_KIND {
            self.sweep(key.kind(), now, told);
        }
        let window = if self.known.len() < OF_A_KIND {
            self.known.entry(key.clone()).or_insert(Window::new(now))
        } else {
            self.others.get_or_insert(Window::new(now))
        };
        window.admit(now)
    }

    /// Removes what is over.
    fn sweep(&mut self, kind: Kind, now: Instant, told: &mut LeftOut) {
        self.known.retain(|key, window| {
            let over = window.is_over(now);
            if over && window.left_out > 0 {
                told.push((key.to_string(), window.left_out));
            }
            !over
        });
        if let Some(window) = self.others.take_if(|window| window.is_over(now))
            && window.left_out > 0
        {
            told.push((kind.others().to_owned(), window.left_out));
        }
    }

    fn is_owing(&self) -> bool {
        let mut windows = self.known.values().chain(&self.others);
        windows.any(|window| window.left_out > 0)
    }
}

#[derive(Debug, Default)]
struct State {
    tables: [Table; KINDS],
    /// A task waits for windows to be over.
    is_awaited: bool,
}

impl State {
    fn admit(&mut self, key: &Key, now: Instant, told: &mut LeftOut) -> Option<u64> {
        let [uids, certificates, networks] = &mut self.tables;
        let table = match key.kind() {
            Kind::Uids => uids,
            Kind::Certificates => certificates,
            Kind::Networks => networks,
        };
        table.admit(key, now, told)
    }

    fn sweep(&mut self, now: Instant) -> LeftOut {
        let mut told = LeftOut::new();
        for (table, kind) in self.tables.iter_mut().zip(Kind::ALL) {
            table.sweep(kind, now, &mut told);
        }
        told
    }
}

/// Bounds the lines about one thing.
#[derive(Debug)]
pub(crate) struct Lines {
    /// What the lines are about, as in "refused writes".
    what: &'static str,
    state: Mutex<State>,
}

impl Lines {
    pub(crate) fn new(what: &'static str) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { what, state })
    }

    /// Whether `key` gets a line now; then how many it did not get before. To be called within a
    /// runtime: what is left out is told by a task, which ends when nothing is.
    pub(crate) fn admit(self: &Arc<Self>, key: &Key) -> Option<u64> {
        let mut told = LeftOut::new();
        let (line, awaits) = {
            let mut state = self.lock();
            let line = state.admit(key, Instant::now(), &mut told);
            let awaits = line.is_none() && !mem::replace(&mut state.is_awaited, true);
            (line, awaits)
        };
        self.tell(told);
        if awaits {
            tokio::spawn(tell_in_time(Arc::downgrade(self)));
        }
        line
    }

    fn tell(&self, left_out: LeftOut) {
        for (of, suppressed) in left_out {
            tracing::warn!(
                target: "audit",
                of,
                suppressed,
                "{} without a line: each identity has {AUDIT_LINES} in {AUDIT_WINDOW:?}",
                self.what
            );
        }
    }

    /// Each critical section leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let end = Instant::now() + AUDIT_WINDOW;
        let told = self.lock().sweep(end);
        self.tell(told);
    }
}

async fn tell_in_time(lines: Weak<Lines>) {
    loop {
        tokio::time::sleep(AUDIT_WINDOW).await;
        let Some(lines) = lines.upgrade() else {
            return;
        };
        let (told, goes_on) = {
            let mut state = lines.lock();
            let told = state.sweep(Instant::now());
            state.is_awaited = state.tables.iter().any(Table::is_owing);
            (told, state.is_awaited)
        };
        lines.tell(told);
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(uid: u32) -> Key {
        Key::Share(Share::Uid(uid))
    }

    fn certificate(name: &str) -> Key {
        Key::Certificate(name.into())
    }

    /// Lines that it gets, and how many those say were left out.
    fn lines(state: &mut State, key: &Key, asked: u32, now: Instant) -> (u32, u64) {
        let admitted = (0..asked).filter_map(|_| state.admit(key, now, &mut LeftOut::new()));
        admitted.fold((0, 0), |(lines, left_out), more| {
            (lines + 1, left_out + more)
        })
    }

    #[test]
    fn each_has_its_lines_and_what_was_left_out_is_told() {
        let (mut state, now) = (State::default(), Instant::now());
        let asked = AUDIT_LINES + 5;
        assert_eq!(lines(&mut state, &uid(7), asked, now), (AUDIT_LINES, 0));
        let other = lines(&mut state, &uid(8), 1, now);
        assert_eq!(other, (1, 0), "another is not affected");
        let next = now + AUDIT_WINDOW;
        assert_eq!(lines(&mut state, &uid(7), 2, next), (2, 5), "a new window");
    }

    #[test]
    fn a_full_table_is_full_for_its_kind_alone() {
        let (mut state, now) = (State::default(), Instant::now());
        for n in 0..OF_A_KIND {
            let key = certificate(&format!("cn:{n}"));
            assert_eq!(lines(&mut state, &key, 1, now), (1, 0));
        }
        for n in 0..=AUDIT_LINES {
            let expected = (u32::from(n < AUDIT_LINES), 0);
            let key = certificate(&format!("cn:another-{n}"));
            assert_eq!(lines(&mut state, &key, 1, now), expected, "they are one");
        }
        let asked = AUDIT_LINES + 1;
        let known = lines(&mut state, &certificate("cn:0"), asked, now);
        assert_eq!(known, (AUDIT_LINES - 1, 0), "a known one has its own");
        let uid = lines(&mut state, &uid(7), asked, now);
        assert_eq!(uid, (AUDIT_LINES, 0), "another kind has room");
        let [_, certificates, _] = &state.tables;
        assert_eq!(certificates.known.len(), OF_A_KIND);

        let mut told = LeftOut::new();
        let next = now + AUDIT_WINDOW;
        let new = state.admit(&certificate("cn:another"), next, &mut told);
        assert_eq!(new, Some(0), "old ones make room");
        told.sort();
        let expected = [("cn:0", 2), ("other certificates", 1)];
        assert_eq!(told, expected.map(|(of, n)| (of.to_owned(), n)));
    }

    #[test]
    fn what_was_left_out_is_told_when_the_window_is_over() {
        let (mut state, now) = (State::default(), Instant::now());
        lines(&mut state, &uid(7), AUDIT_LINES + 5, now);
        lines(&mut state, &uid(8), AUDIT_LINES, now);
        assert_eq!(state.sweep(now), [], "it is not over");
        assert!(state.tables.iter().any(Table::is_owing));
        let told = state.sweep(now + AUDIT_WINDOW);
        assert_eq!(told, [("uid:7".to_owned(), 5)]);
        assert!(!state.tables.iter().any(Table::is_owing));
        assert!(state.tables.iter().all(|table| table.known.is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_waits_as_long_as_there_is_something_to_tell() {
        let lines = Lines::new("tests");
        for _ in 0..AUDIT_LINES + 5 {
            lines.admit(&uid(7));
        }
        assert!(lines.lock().is_awaited);
        tokio::time::sleep(AUDIT_WINDOW * 2).await;
        let state = lines.lock();
        assert!(!state.is_awaited && !state.tables.iter().any(Table::is_owing));
    }
}
