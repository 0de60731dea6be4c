//! When bare codes and the kernel's lines were seen, for [`crate::bare`]; in the host's state, a line for each code:
//! `code TAB drill TAB instance TAB line TAB burst TAB waiting TAB undecoded`, times as [`Signal::at_ms`], `-` for never.

use std::fmt::Write as _;

use device_policy_sdk::Host;
use device_policy_sdk::types::Signal;

use crate::bare::WINDOW_MS;

const KEY: &str = "bare";
/// Bare codes in a row for which one line speaks, where each comes within [`WINDOW_MS`] of the one before: in a storm
/// the kernel's log loses lines and falls behind.
const BURST_MS: u64 = 10_000;
/// How late a line may come: the kernel's log is read on where the daemon restarts or could not read. As long as an
/// incident stays open.
const LATE_MS: u64 = 600_000;
/// Codes and instances remembered: eight codes on a GPU and on its instances, of which few fail together. Past it the one
/// that was longest quiet is forgotten; what it waits for is in the [`crate::book`], and ends by the wake.
const ENTRIES_MAX: usize = 32;

/// One code of the GPU or of one instance, of real signals or of drills.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    code: u64,
    drill: bool,
    /// Empty: the whole GPU.
    instance: String,
    /// The newest line that speaks for bare codes after it.
    line: Option<u64>,
    /// The newest line, or bare code that it spoke for.
    burst: Option<u64>,
    /// The newest bare code that no line has spoken for yet.
    waiting: Option<u64>,
    /// The newest that has waited in vain, where nothing but bare codes is behind what stands.
    undecoded: Option<u64>,
}

/// For which bare codes a line speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Waiting,
    /// It is late.
    Undecoded,
    /// For those to come.
    Nothing,
}

impl Entry {
    fn is_of(&self, code: u64, signal: &Signal) -> bool {
        self.code == code
            && self.drill == signal.drill
            && self.instance == signal.instance.as_deref().unwrap_or_default()
    }

    /// Whether a line has spoken for a bare code of now.
    pub(crate) fn is_told(&mut self, at_ms: u64) -> bool {
        let is_told =
            is_within(self.burst, at_ms, WINDOW_MS) && is_within(self.line, at_ms, BURST_MS);
        if is_told {
            self.burst = self.burst.max(Some(at_ms));
        }
        is_told
    }

    /// Takes a line in. One that is late speaks for what came before it, so that an error of now waits for its own.
    pub(crate) fn line(&mut self, at_ms: u64) -> Told {
        let told = if self.waiting.take().is_some() {
            Told::Waiting
        } else if is_within(self.undecoded.take(), at_ms, LATE_MS) {
            return Told::Undecoded;
        } else {
            Told::Nothing
        };
        self.line = self.line.max(Some(at_ms));
        self.burst = self.burst.max(Some(at_ms));
        told
    }

    pub(crate) fn waits_from(&mut self, at_ms: u64) {
        self.waiting = self.waiting.max(Some(at_ms));
    }

    pub(crate) fn undecoded_from(&mut self, at_ms: u64) {
        self.undecoded = self.undecoded.max(Some(at_ms));
    }

    pub(crate) fn is_undecoded(&self) -> bool {
        self.undecoded.is_some()
    }

    /// No line came for what waits since then.
    pub(crate) fn ends_waiting(&mut self, since_ms: u64) {
        self.undecoded = self.waiting.take().max(Some(since_ms));
    }

    /// The same of what has waited while a word on bare codes, or on a line, stood already.
    pub(crate) fn end_wait_beside(&mut self, at_ms: u64) {
        let waited = self
            .waiting
            .take_if(|waiting| waiting.abs_diff(at_ms) > WINDOW_MS);
        if waited.is_some() && self.is_undecoded() {
            self.undecoded = self.undecoded.max(waited);
        }
    }

    /// Of the bare codes nothing stands any more.
    pub(crate) fn forget_bare(&mut self) {
        (self.waiting, self.undecoded) = (None, None);
    }

    fn newest(&self) -> Option<u64> {
        let times = [self.line, self.burst, self.waiting, self.undecoded];
        times.into_iter().max().flatten()
    }
}

fn is_within(time: Option<u64>, at_ms: u64, span_ms: u64) -> bool {
    time.is_some_and(|time| time.abs_diff(at_ms) <= span_ms)
}

/// All of a device, for the length of one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    is_touched: bool,
}

impl Ledger {
    /// `None`: what is there is no ledger.
    pub(crate) fn read(host: &dyn Host) -> Option<Self> {
        let Some(bytes) = host.get(KEY) else {
            return Some(Self::default());
        };
        let text = std::str::from_utf8(&bytes).ok()?;
        Some(Self {
            entries: text.lines().map(decode).collect::<Option<_>>()?,
            is_touched: false,
        })
    }

    /// # Errors
    /// The host's quota.
    pub(crate) fn write(mut self, host: &mut dyn Host) -> Result<(), String> {
        if !self.is_touched {
            return Ok(());
        }
        let now_ms = host.now_ms();
        self.entries
            .retain(|entry| is_within(entry.newest(), now_ms, LATE_MS));
        if self.entries.is_empty() {
            host.delete(KEY);
            return Ok(());
        }
        let text: String = self.entries.iter().map(encode).collect();
        host.put(KEY, text.as_bytes())
    }

    pub(crate) fn entry(&mut self, code: u64, signal: &Signal) -> &mut Entry {
        self.is_touched = true;
        let of = |entry: &Entry| entry.is_of(code, signal);
        let at = self.entries.iter().position(of).unwrap_or_else(|| {
            self.make_room();
            self.entries.push(Entry {
                code,
                drill: signal.drill,
                instance: signal.instance.clone().unwrap_or_default(),
                ..Entry::default()
            });
            self.entries.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or just pushed")]
        &mut self.entries[at]
    }

    fn make_room(&mut self) {
        if self.entries.len() < ENTRIES_MAX {
            return;
        }
        let entries = self.entries.iter().enumerate();
        let oldest = entries.min_by_key(|(_, entry)| entry.newest());
        if let Some((at, _)) = oldest {
            self.entries.remove(at);
        }
    }
}

fn encode(entry: &Entry) -> String {
    let Entry {
        code,
        drill,
        instance,
        ..
    } = entry;
    let mut out = format!("{code}\t{}\t{instance}", u8::from(*drill));
    for time in [entry.line, entry.burst, entry.waiting, entry.undecoded] {
        // Writing to a string can't fail.
        let _ = match time {
            Some(time) => write!(out, "\t{time}"),
            None => write!(out, "\t-"),
        };
    }
    out + "\n"
}

/// `None`: no line of [`encode`].
fn decode(line: &str) -> Option<Entry> {
    let mut fields = line.split('\t');
    let code = fields.next()?.parse().ok()?;
    let drill = match fields.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let instance = fields.next()?.to_owned();
    let mut time = || match fields.next()? {
        "-" => Some(None),
        time => time.parse().ok().map(Some),
    };
    let entry = Entry {
        code,
        drill,
        instance,
        line: time()?,
        burst: time()?,
        waiting: time()?,
        undecoded: time()?,
    };
    fields.next().is_none().then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use device_policy_sdk::testing::{FakeHost, signals};

    #[test]
    fn it_survives_a_round_trip_is_bounded_and_forgets_what_is_old() {
        let mut host = FakeHost {
            now_ms: 1_000_000,
            quota_bytes: 8 * 1024,
            ..FakeHost::default()
        };
        let mut ledger = Ledger::default();
        for at in 0..3 * ENTRIES_MAX as u64 {
            let signal = Signal {
                drill: at % 2 == 1,
                instance: (at % 3 > 0).then(|| format!("MIG-{at:036}")),
                ..signals().signal("xid")
            };
            let entry = ledger.entry(145, &signal);
            entry.line(host.now_ms + at);
            entry.waits_from(host.now_ms + at);
            if at % 5 == 0 {
                entry.ends_waiting(at);
            }
        }
        ledger.clone().write(&mut host).unwrap();
        let again = Ledger::read(&host).unwrap();
        assert_eq!(again.entries, ledger.entries);
        assert_eq!(again.entries.len(), ENTRIES_MAX);
        host.now_ms += 2 * LATE_MS;
        ledger.write(&mut host).unwrap();
        assert!(host.state.is_empty());
        for foreign in [
            "145\t2\t\t-\t-\t-\t-",
            "145\t0\t\t-\t-",
            "145\t0\t\t-\t-\t-\t-\t-",
            "x",
        ] {
            host.state.insert(KEY.to_owned(), foreign.into());
            assert_eq!(Ledger::read(&host), None, "{foreign}");
        }
    }
}
