//! How often a code came back: a window says how many times within how long, and what then.
//!
//! What was counted lies in the host's state, a line for each place: `instance TAB place TAB raised TAB times`.
//! Faults closer together than `apart_ms` are one burst and count once, whoever told of them. Once raised, it
//! stands until its quiet time, a replacement or a person clears it, though the window may have moved on; then
//! it counts from the start.
//!
//! **Invariant:** drills are counted apart.

use std::fmt::Write as _;

use device_policy_sdk::types::{Device, Severity, Signal};
use device_policy_sdk::verdict::stands;
use device_policy_sdk::{Host, Level};

use crate::finding::{Action, Finding, REPEATS, Reason, Until};
use crate::place::Same;

/// Places counted for one code: past it the one that was longest quiet is forgotten. With
/// [`WINDOWS_MAX`] and [`COUNT_MAX`] at most 16 KiB of the 64 that a policy has for a GPU.
pub(crate) const PLACES_MAX: usize = 8;
/// Windows of one configuration.
pub(crate) const WINDOWS_MAX: usize = 8;
/// The most times that a window counts to.
pub(crate) const COUNT_MAX: u64 = 16;

/// When a code has come back often enough, and what that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub same: Same,
    pub count: usize,
    pub within_ms: u64,
    pub apart_ms: u64,
    /// 0: only a replacement or a person clears it.
    pub quiet_ms: u64,
    pub severity: Severity,
    pub action: Action,
}

/// One place and when the code was seen there, ascending.
#[derive(Clone, Debug, Default, PartialEq)]
struct Place {
    instance: String,
    name: String,
    raised: bool,
    at_ms: Vec<u64>,
}

/// What was counted, as far as this call needs it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    open: Vec<(String, Vec<Place>)>,
}

impl Counts {
    /// Counts a signal. `Some`: the window is full, or was and still stands.
    pub(crate) fn take(
        &mut self,
        host: &mut dyn Host,
        device: &Device,
        code: u64,
        window: &Window,
        signal: &Signal,
    ) -> Option<Finding> {
        let name = window.same.place(signal)?;
        let instance = signal.instance.clone().unwrap_or_default();
        let places = self.places(host, device, key(code, signal.drill));
        let same = |place: &Place| place.name == name && place.instance == instance;
        let at = places.iter().position(same).unwrap_or_else(|| {
            make_room(places);
            places.push(Place {
                instance,
                name,
                ..Place::default()
            });
            places.len() - 1
        });
        let place = places.get_mut(at)?;
        place.count(signal.at_ms, window);
        place.raised |= place.at_ms.len() >= window.count;
        place.raised.then(|| finding(window, &place.name))
    }

    /// Writes what was counted.
    ///
    /// # Errors
    /// The host's quota.
    pub(crate) fn close(self, host: &mut dyn Host) -> Result<(), String> {
        for (key, places) in self.open {
            host.put(&key, encode(&places).as_bytes())?;
        }
        Ok(())
    }

    /// The places of a code; read at the first use of a call, when `device.standing` is still the truth.
    fn places(&mut self, host: &mut dyn Host, device: &Device, key: String) -> &mut Vec<Place> {
        let at = self
            .open
            .iter()
            .position(|(open, _)| *open == key)
            .unwrap_or_else(|| {
                let mut places = read(host, &key);
                places.retain(|place| {
                    let instance = Some(place.instance.as_str()).filter(|name| !name.is_empty());
                    !place.raised
                        || stands(device, REPEATS, instance)
                        || stands(device, REPEATS, None)
                });
                self.open.push((key, places));
                self.open.len() - 1
            });
        #[expect(clippy::indexing_slicing, reason = "found or just pushed")]
        &mut self.open[at].1
    }
}

impl Place {
    fn count(&mut self, at_ms: u64, window: &Window) {
        let burst = |seen: &u64| seen.abs_diff(at_ms) < window.apart_ms;
        if !self.at_ms.iter().any(burst) {
            let at = self.at_ms.partition_point(|seen| *seen < at_ms);
            self.at_ms.insert(at, at_ms);
        }
        let newest = self.at_ms.last().copied().unwrap_or_default();
        self.at_ms
            .retain(|seen| newest.saturating_sub(*seen) < window.within_ms);
        // What matters is whether there are `count`: the newest tell.
        let surplus = self.at_ms.len().saturating_sub(window.count);
        self.at_ms.drain(..surplus);
    }
}

fn finding(window: &Window, place: &str) -> Finding {
    let (severity, action) = (window.severity, window.action);
    let healthy = match severity {
        Severity::Info => "; the GPU stays healthy",
        Severity::Warning | Severity::Fatal => "",
    };
    let note = format!(
        "seen {} times within {} on {place}, possibly a fault of the GPU itself; action {}{healthy}",
        window.count,
        duration(window.within_ms),
        action.word()
    );
    Finding {
        severity,
        action,
        reason: Reason::RepeatedFault,
        until: Until::Diagnosed,
        note: note.into(),
    }
}

/// In the greatest unit that leaves no rest.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    for (unit, name) in [(3600, "h"), (60, "min")] {
        if seconds.is_multiple_of(unit) {
            return format!("{} {name}", seconds / unit);
        }
    }
    format!("{seconds} s")
}

fn key(code: u64, drill: bool) -> String {
    if drill {
        format!("window/{code}/drill")
    } else {
        format!("window/{code}")
    }
}

/// Drops the place that was longest quiet, one that stands last.
fn make_room(places: &mut Vec<Place>) {
    if places.len() < PLACES_MAX {
        return;
    }
    let oldest = places
        .iter()
        .enumerate()
        .min_by_key(|(_, place)| (place.raised, place.at_ms.last().copied()))
        .map(|(at, _)| at);
    if let Some(at) = oldest {
        places.remove(at);
    }
}

fn read(host: &mut dyn Host, key: &str) -> Vec<Place> {
    let Some(bytes) = host.get(key) else {
        return Vec::new();
    };
    let places = std::str::from_utf8(&bytes).ok().and_then(decode);
    places.unwrap_or_else(|| {
        host.log(
            Level::Warn,
            &format!("state {key} is not readable and is begun anew"),
        );
        Vec::new()
    })
}

fn encode(places: &[Place]) -> String {
    let mut out = String::new();
    for place in places {
        let raised = u8::from(place.raised);
        let times: Vec<String> = place.at_ms.iter().map(u64::to_string).collect();
        let times = times.join(" ");
        // Writing to a string can't fail.
        let _ = writeln!(out, "{}\t{}\t{raised}\t{times}", place.instance, place.name);
    }
    out
}

/// `None`: no text of [`encode`].
fn decode(text: &str) -> Option<Vec<Place>> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let (instance, name) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let raised = match fields.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let times = fields.next()?.split_whitespace().map(str::parse);
        Some(Place {
            instance,
            name,
            raised,
            at_ms: times.collect::<Result<_, _>>().ok()?,
        })
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests;
