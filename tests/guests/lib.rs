//! The hostile guests that are written in Rust, on the SDK as any policy author would: one folder each,
//! with the doc of what it does wrong on top of its `guest.rs`.
//!
//! All are one crate, compiled once. Which of them a component *is* stands in [`WHICH`], over which
//! `tests/build.rs` writes the folder's name: sixty components for the price of one.

use std::hint::black_box;

use device_policy_sdk::types::{Decision, Device, Severity, Signal};
use device_policy_sdk::verdict::{Builder, ok, problem};
use device_policy_sdk::{Host, Info, Policy, clear, info, kind, subscribe};

include!(concat!(env!("OUT_DIR"), "/kit.rs"));

/// What `tests/build.rs` looks for, and how long a folder's name may be.
static WHICH: [u8; 48] = *b"<hostile-guest: its folder's name comes here   >";

/// What an ordinary policy has of its own, and its one condition type.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    /// The folder's.
    pub(crate) name: String,
    /// The same in CamelCase.
    pub(crate) condition: String,
}

impl Me {
    /// Owns its one type, and wants each XID.
    pub(crate) fn ordinary(&self) -> Info {
        info(&self.name, "1.0.0")
            .owns(&self.condition, true, &["Hostile", "Fine"])
            .subscribe(subscribe::all(kind::XID))
    }

    /// A problem that nobody need care about.
    pub(crate) fn problem(&self, signal: &Signal) -> Builder {
        problem(&self.condition, Severity::Info, "Hostile", signal).clears(&[clear::POLICY])
    }

    /// Wants each degree besides, of each GPU.
    pub(crate) fn eager(&self) -> Info {
        self.ordinary()
            .subscribe(subscribe::reading("temperature.gpu", 0))
    }

    pub(crate) fn ok(&self, signal: &Signal) -> Builder {
        ok(&self.condition, "Fine", signal)
    }
}

/// One call of `evaluate`.
pub(crate) struct Call<'a> {
    pub(crate) me: &'a Me,
    pub(crate) host: &'a mut dyn Host,
    pub(crate) signals: &'a [Signal],
}

impl Call<'_> {
    /// A decision of one verdict for each signal.
    pub(crate) fn each(&self, verdict: impl Fn(&Me, &Signal) -> Builder) -> Decision {
        Decision {
            verdicts: self
                .signals
                .iter()
                .map(|signal| verdict(self.me, signal).into())
                .collect(),
            ..Decision::default()
        }
    }
}

/// What a folder's `Guest` is: an ordinary policy but for what it overrides.
pub(crate) trait Hostile {
    fn configure(&self, me: &Me, _config: &str) -> Result<Info, String> {
        Ok(me.ordinary())
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        Ok(call.each(Me::problem))
    }

    /// Whether it knows that it is being tried (design H9), and behaves until it is in its seat.
    fn is_a_sleeper(&self) -> bool {
        true
    }
}

/// The device on which the host tries a version before it may judge.
const TRIED_ON: &str = "GPU-00000000-0000-0000-0000-000000000000";

/// The one policy that all of them are.
pub struct Kit {
    me: Me,
    guest: Box<dyn Hostile>,
}

impl std::fmt::Debug for Kit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kit")
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

impl Policy for Kit {
    fn configure(config: &str) -> Result<(Self, Info), String> {
        // The optimiser knows what is written here, and must not use it.
        let which = black_box(&WHICH);
        let end = which
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(which.len());
        let name = String::from_utf8_lossy(which.get(..end).unwrap_or_default()).into_owned();
        let guest = guest(&name).ok_or_else(|| format!("there is no guest {name:?}"))?;
        let condition = name.split('-').map(capitalised).collect();
        let me = Me { name, condition };
        let info = guest.configure(&me, config)?;
        Ok((Self { me, guest }, info))
    }

    fn evaluate(
        &self,
        host: &mut dyn Host,
        device: &Device,
        signals: &[Signal],
    ) -> Result<Decision, String> {
        let mut call = Call {
            me: &self.me,
            host,
            signals,
        };
        if self.guest.is_a_sleeper() && device.uuid == TRIED_ON {
            return Ok(call.each(Me::ok));
        }
        self.guest.evaluate(&mut call)
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_ascii_uppercase().to_string() + chars.as_str()
    })
}

device_policy_sdk::export!(Kit);
