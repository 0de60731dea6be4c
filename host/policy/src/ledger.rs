//! What the policy host remembers over restarts: good versions with their bytes, what is quarantined, what
//! an operator accepted or paused, and in whose calls the daemon died.
//!
//! ```text
//!  STATE/policies/ledger.json    this ledger; written anew and renamed
//!                 good/DIGEST    the bytes of versions that it names
//!                 calls/         crash markers (marker.rs)
//! ```

mod books;
mod files;
mod too_much;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::limits::{POLICIES_MAX, POLICY_RECORDS_MAX};
use device_api_wasm::Limits;
use serde::{Deserialize, Serialize};

use crate::marker::Mark;

pub(crate) use books::Books;
pub(crate) use files::{hex, make_private, read_bounded, sha256};
pub(crate) use too_much::TOO_MUCH_MAX;

/// Written into the ledger; one of a later format is refused and left as it is, not guessed at.
const FORMAT: u32 = 1;

/// Policies remembered: those of a set, and those of sets before it.
const POLICIES_REMEMBERED_MAX: usize = 4 * POLICIES_MAX;

/// Digests quarantined at once.
const QUARANTINED_MAX: usize = POLICIES_MAX * POLICY_RECORDS_MAX;

/// Digits of a [`setting`]: few settings are ever told apart.
const SETTING_DIGITS: usize = 16;

/// Digests with crash strikes at once.
const CRASHES_MAX: usize = 64;

/// Crashes until a digest is quarantined (design H5; docs/adr/0012).
const CRASH_STRIKES: u32 = 2;

/// How likely a kill hits a call of a policy that is hardly ever called, at least: so much is doubted of
/// every strike, and a second is always needed.
const CHANCE_MIN: f64 = 0.01;

/// And at most: one that is always being called, or of which nothing is known, is let off no more often than
/// four times in a row.
pub(crate) const CHANCE_MAX: f64 = 0.1;

/// A digest is quarantined once the chance that kills from outside (out of memory, `kill -9`) hit its calls
/// so often in a row falls to this. A policy that takes up to 1 % of a run's time is out with the second
/// strike; the bundled ones take 0.1 % in a storm. One that takes 10 % needs four, since of two kills in
/// a row one pair in a hundred would hit it by chance; so a node whose daemon is killed a hundred
/// times in a storm loses a good policy with a probability below 1 %.
const CHANCE_TO_QUARANTINE: f64 = 1.000_1e-4;

/// All that is remembered. What a later daemon adds is left out and not refused, here and below: a daemon that is put back
/// must not forget what is quarantined. What is added has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    format: u32,
    pub(crate) policies: BTreeMap<String, Remembered>,
    /// Newest last.
    pub(crate) quarantined: Vec<Quarantined>,
    crashes: BTreeMap<String, Crashes>,
    /// Files that were listed as shadows when they were listed last, and are still there; newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) onlookers: Vec<Onlooker>,
    /// By digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    too_much: BTreeMap<String, too_much::TooMuch>,
    /// The one before this could not be read, and versions of the site that nobody has accepted since may have
    /// been quarantined in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<Lost>,
}

/// What every format says first: the rest may have any form.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

/// A ledger that could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lost {
    damage: String,
    /// Where it lies now.
    aside: String,
}

impl Lost {
    /// What happened, in a few words.
    pub(crate) fn told(&self) -> String {
        let Self { damage, aside } = self;
        format!("the ledger of policies could not be read ({damage}), and lies in {aside}")
    }
}

/// A file that looked on. That nobody lists it any more does not have it judge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Onlooker {
    pub(crate) file: String,
    /// Empty where it could not be read.
    pub(crate) digest: String,
}

/// Of one policy, by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) last_good: Option<Kept>,
    /// The one that was seated last: kept, since it becomes the last good one when it is replaced unproved
    /// and there is no other.
    pub(crate) seated: Option<Kept>,
    /// `DIGEST/SETTING` that an operator let in although it was held; newest last.
    pub(crate) accepted: Vec<String>,
    pub(crate) paused: Option<Paused>,
    /// The version that the brake holds.
    #[serde(default)]
    pub(crate) held: Option<HeldBack>,
}

/// A version that waits for an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeldBack {
    pub(crate) digest: String,
    /// With which it is held ([`setting`]), as it is accepted.
    #[serde(default)]
    pub(crate) setting: String,
    pub(crate) why: String,
}

impl HeldBack {
    pub(crate) fn is(&self, digest: &str, setting: &str) -> bool {
        self.digest == digest && self.setting == setting
    }
}

/// A version whose bytes are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) digest: String,
    pub(crate) version: String,
    pub(crate) origin: String,
    pub(crate) since_ms: u64,
    pub(crate) config: String,
    /// As `policies.yaml` writes them.
    pub(crate) limits: BTreeMap<String, String>,
    /// On what terms it judged, in the words of `policies.yaml`; empty: the defaults.
    #[serde(default)]
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) fallback: String,
    #[serde(default)]
    pub(crate) grants: Vec<String>,
    /// Condition types: they stay its own over a restart, whoever is loaded first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) owns: Vec<String>,
    /// It came while it was paused, and was not admitted since: it never judged, and the brake is still to come.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) unexamined: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quarantined {
    pub(crate) digest: String,
    /// With which configuration and limits ([`setting`]); empty: whatever it is run with.
    #[serde(default)]
    pub(crate) setting: String,
    /// Empty where it died before it could say.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) origin: String,
    pub(crate) since_ms: u64,
    pub(crate) why: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Paused {
    pub(crate) since_ms: u64,
    pub(crate) reason: String,
}

/// The daemon died in calls of one digest, run after run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Crashes {
    strikes: u32,
    /// That this is not its fault.
    chance: f64,
}

/// What a version is run with, in short: its configuration and limits. A bad text or too low a limit is no
/// fault of the file.
pub(crate) fn setting(config: &str, limits: &Limits) -> String {
    let mut text = format!("{}\n{config}\n", config.len());
    for row in Limits::rows() {
        text.push_str(&format!("{}={}\n", row.name(), row.value(limits)));
    }
    let mut digest = sha256(text.as_bytes());
    digest.truncate(SETTING_DIGITS);
    digest
}

impl Ledger {
    pub(crate) fn of(&mut self, name: &str) -> &mut Remembered {
        if !self.policies.contains_key(name) && self.policies.len() >= POLICIES_REMEMBERED_MAX {
            // Who is seated or paused is missed most, who was seated longest ago least.
            let worth = |(_, entry): &(&String, &Remembered)| {
                let since = entry.last_good.as_ref().map(|kept| kept.since_ms);
                (entry.seated.is_some(), entry.paused.is_some(), since)
            };
            let gone = self.policies.iter().min_by_key(worth);
            let gone = gone.map(|(name, _)| name.clone());
            gone.and_then(|name| self.policies.remove(&name));
        }
        self.policies.entry(name.to_owned()).or_default()
    }

    /// What components called themselves when they were loaded last, by digest.
    pub(crate) fn names(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> + '_ {
        self.policies.iter().flat_map(|(name, entry)| {
            let kept = entry.seated.iter().chain(&entry.last_good);
            let digests = kept.map(|kept| &kept.digest);
            let digests = digests.chain(entry.held.as_ref().map(|held| &held.digest));
            digests.map(|digest| (digest.as_str().into(), name.as_str().into()))
        })
    }

    /// Why a version is not asked with that configuration and those limits ([`setting`]).
    pub(crate) fn quarantine_of(&self, digest: &str, setting: &str) -> Option<&Quarantined> {
        let is_it = |entry: &&Quarantined| {
            entry.digest == digest && (entry.setting.is_empty() || entry.setting == setting)
        };
        self.quarantined.iter().rev().find(is_it)
    }

    /// Whether it was ever quarantined, whatever it was run with.
    pub(crate) fn is_blamed(&self, digest: &str) -> bool {
        self.quarantined.iter().any(|entry| entry.digest == digest)
    }

    pub(crate) fn quarantine(&mut self, entry: Quarantined) {
        self.quarantined
            .retain(|other| (&other.digest, &other.setting) != (&entry.digest, &entry.setting));
        self.quarantined.push(entry);
        let excess = self.quarantined.len().saturating_sub(QUARANTINED_MAX);
        self.quarantined.drain(..excess);
    }

    /// Gives those of a digest a name that had none.
    pub(crate) fn name_quarantined(&mut self, digest: &str, name: &str) {
        for entry in &mut self.quarantined {
            if entry.digest == digest && entry.name.is_empty() {
                entry.name = name.to_owned();
            }
        }
    }

    /// Forgets quarantines, and the crashes that led to them; says of how many.
    pub(crate) fn release(&mut self, is_meant: impl Fn(&Quarantined) -> bool) -> usize {
        let before = self.quarantined.len();
        for entry in self.quarantined.iter().filter(|entry| is_meant(entry)) {
            self.crashes.remove(&entry.digest);
        }
        self.quarantined.retain(|entry| !is_meant(entry));
        before - self.quarantined.len()
    }

    pub(crate) fn accept(&mut self, name: &str, digest: &str, setting: &str) {
        let accepted = &mut self.of(name).accepted;
        let entry = format!("{digest}/{setting}");
        accepted.retain(|other| *other != entry);
        accepted.push(entry);
        let excess = accepted.len().saturating_sub(POLICY_RECORDS_MAX);
        accepted.drain(..excess);
    }

    pub(crate) fn is_accepted(&self, name: &str, digest: &str, setting: &str) -> bool {
        let accepted = self.policies.get(name).map(|entry| &entry.accepted);
        let entry = format!("{digest}/{setting}");
        accepted.is_some_and(|accepted| accepted.contains(&entry))
    }

    /// It has the seat: what was accepted of others was for the faults of that day.
    pub(crate) fn forget_other_accepts(&mut self, name: &str, digest: &str, setting: &str) {
        if let Some(remembered) = self.policies.get_mut(name) {
            let entry = format!("{digest}/{setting}");
            remembered.accepted.retain(|other| *other == entry);
        }
    }

    /// Takes how the last run ended: in whose call it died, and in whose it did not.
    pub(crate) fn judge_crashes(&mut self, marks: &[Mark], now: WallTime) {
        let died_in: BTreeMap<&str, f64> = marks
            .iter()
            .filter(|mark| mark.in_call)
            .map(|mark| (mark.digest.as_str(), mark.share))
            .collect();
        for mark in marks {
            if !died_in.contains_key(mark.digest.as_str()) {
                self.crashes.remove(&mark.digest);
            }
        }
        for (digest, share) in died_in {
            let crashes = self.crashes.entry(digest.to_owned()).or_insert(Crashes {
                strikes: 0,
                chance: 1.0,
            });
            crashes.strikes += 1;
            crashes.chance *= share.clamp(CHANCE_MIN, CHANCE_MAX);
            let crashes = *crashes;
            tracing::warn!(
                digest,
                strikes = crashes.strikes,
                "the daemon died during a call of a policy; this is held against it"
            );
            if crashes.strikes >= CRASH_STRIKES && crashes.chance <= CHANCE_TO_QUARANTINE {
                self.quarantine_for_crashes(digest, crashes.strikes, now);
            }
        }
        while self.crashes.len() > CRASHES_MAX {
            self.crashes.pop_first();
        }
    }

    fn quarantine_for_crashes(&mut self, digest: &str, strikes: u32, now: WallTime) {
        let known = self.policies.iter().find_map(|(name, entry)| {
            let kept = entry.seated.iter().chain(&entry.last_good);
            let same = kept.into_iter().find(|kept| kept.digest == digest)?;
            Some((name.clone(), same.version.clone(), same.origin.clone()))
        });
        let (name, version, origin) = known.unwrap_or_default();
        let why = format!("the daemon died during its calls, {strikes} times in a row");
        tracing::error!(policy = name, digest, why, "policy quarantined");
        self.quarantine(Quarantined {
            digest: digest.to_owned(),
            setting: String::new(),
            name,
            version,
            origin,
            since_ms: now.unix_ms(),
            why,
        });
    }

    /// It ran long enough without a crash, or the run ended as it should.
    pub(crate) fn forgive_crashes(&mut self, digest: &str) -> bool {
        self.crashes.remove(digest).is_some()
    }

    /// Forgets the last good version that is missed least, and says whose it was: one that nobody has in a seat,
    /// of a policy that has none itself if there is one, and of those the oldest.
    fn forget_a_good_one(&mut self) -> Option<(String, Kept)> {
        let is_out = |kept: &Kept| self.is_blamed(&kept.digest);
        let mut seated = BTreeSet::new();
        for entry in self.policies.values() {
            let in_seat = entry.seated.as_ref();
            // Who stands in for it has its seat.
            let stands_in = in_seat
                .filter(|kept| is_out(kept))
                .and(entry.last_good.as_ref());
            seated.extend(
                in_seat
                    .into_iter()
                    .chain(stands_in)
                    .map(|kept| kept.digest.clone()),
            );
        }
        let spare = self.policies.iter_mut().filter(|(_, entry)| {
            let good = entry.last_good.as_ref();
            good.is_some_and(|kept| !seated.contains(&kept.digest))
        });
        let worth = |(_, entry): &(&String, &mut Remembered)| {
            let since = entry.last_good.as_ref().map(|kept| kept.since_ms);
            (entry.seated.is_some(), since)
        };
        let (name, entry) = spare.min_by_key(worth)?;
        Some((name.clone(), entry.last_good.take()?))
    }

    /// Digests whose bytes are kept.
    fn named(&self) -> BTreeSet<&str> {
        let kept = |entry: &Remembered| entry.seated.is_some() || entry.last_good.is_some();
        self.policies
            .values()
            .filter(|entry| kept(entry))
            .flat_map(|entry| entry.seated.iter().chain(&entry.last_good))
            .map(|kept| kept.digest.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests;
