//! A policy that counts its signals in its state and says the count: what is lost, or committed twice, shows.
//!
//! It is many versions of many policies, compiled once. Which one stands in [`SETTINGS`], over which a test
//! writes words as `name=tally version=2 fatal=31`:
//!
//! | word | what |
//! | --- | --- |
//! | `name`, `version`, `schema` | what it says of itself; `tally`, `1`, 0 |
//! | `fatal`, `warning` | XIDs, separated by commas, that are a problem so grave; of others nothing is said but the count |
//! | `traps`, `busy` | XIDs on which it traps, or uses up its deadline |
//! | `wakes` | XIDs that set a timer |
//! | `found` | anything: it is told of GPUs that are found, too, and says how often it was |

use std::hint::black_box;

use device_policy_sdk::types::{Decision, Device, Severity, Signal, Verdict, Wake};
use device_policy_sdk::verdict::{newest, ok, problem, timer_name};
use device_policy_sdk::{Host, HostExt, Info, Level, Policy, action, clear, info, kind, subscribe};

/// Where a test writes, up to the first NUL.
static SETTINGS: [u8; 128] = *b"<tally-guest: words as name=tally version=2 come here, up to 128 bytes of them                                                 >";

const TIMER: &str = "reminder";

/// Long enough for a restart to come between, short enough to wait for.
const TIMER_MS: u64 = 2_000;

/// Keys of counts begin so; the XID follows.
const COUNT: &str = "xid-";

/// Key of how often the GPU was found.
const FOUND: &str = "found";

/// One version of one policy.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    name: String,
    version: String,
    schema: u32,
    fatal: Vec<u64>,
    warning: Vec<u64>,
    traps: Vec<u64>,
    busy: Vec<u64>,
    wakes: Vec<u64>,
    counts_found: bool,
}

impl Tally {
    fn parse(text: &str) -> Result<Self, String> {
        let mut tally = Self {
            name: "tally".to_owned(),
            version: "1".to_owned(),
            ..Self::default()
        };
        for word in text.split_whitespace() {
            let unknown = || format!("{word:?} is no setting of the tally guest");
            let (key, value) = word.split_once('=').ok_or_else(unknown)?;
            let codes = || {
                let codes = value.split(',').map(|code| code.parse::<u64>());
                codes.collect::<Result<Vec<_>, _>>().map_err(|_| unknown())
            };
            match key {
                "name" => value.clone_into(&mut tally.name),
                "version" => value.clone_into(&mut tally.version),
                "schema" => tally.schema = value.parse().map_err(|_| unknown())?,
                "fatal" => tally.fatal = codes()?,
                "warning" => tally.warning = codes()?,
                "traps" => tally.traps = codes()?,
                "busy" => tally.busy = codes()?,
                "wakes" => tally.wakes = codes()?,
                "found" => tally.counts_found = true,
                _ => return Err(unknown()),
            }
        }
        Ok(tally)
    }

    /// A condition type of its own: its name in CamelCase, and what it is about.
    fn condition(&self, about: &str) -> String {
        let words = self.name.split('-').map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        });
        words.collect::<String>() + about
    }

    /// What it has counted: `schema=0 version=1 13=4 31=7`.
    fn said(&self, host: &dyn Host) -> String {
        let mut said = format!("schema={} version={}", self.schema, self.version);
        for key in host.keys() {
            if let Some(code) = key.strip_prefix(COUNT) {
                let count: u64 = host.get_parsed(&key).unwrap_or(0);
                said += &format!(" {code}={count}");
            }
        }
        said
    }

    fn one(
        &self,
        host: &mut dyn Host,
        signal: &Signal,
    ) -> Result<(Vec<Verdict>, Option<Wake>), String> {
        let mut verdicts = Vec::new();
        if timer_name(signal) == Some(TIMER) {
            let reminded = ok(&self.condition("Timer"), "Reminded", signal);
            return Ok((vec![reminded.message(self.said(host)).into()], None));
        }
        if signal.kind == kind::GPU_FOUND {
            let found = 1 + host.get_parsed::<u64>(FOUND).unwrap_or(0);
            host.put_display(FOUND, found)?;
            let said = ok(&self.condition("Found"), "Counted", signal);
            return Ok((vec![said.message(format!("found={found}")).into()], None));
        }
        let Some(code) = signal.code else {
            return Ok((verdicts, None));
        };
        assert!(!self.traps.contains(&code), "it traps on {code}");
        if self.busy.contains(&code) {
            host.log(Level::Warn, &format!("busy over {code}"));
            busy();
        }
        let key = format!("{COUNT}{code}");
        let before: u64 = host.get_parsed(&key).unwrap_or(0);
        host.put_display(&key, before + u64::from(signal.repeats))?;
        let counted = ok(&self.condition("Count"), "Counted", signal);
        verdicts.push(counted.message(self.said(host)).into());
        let grave = [
            (&self.fatal, Severity::Fatal),
            (&self.warning, Severity::Warning),
        ];
        if let Some((_, severity)) = grave.into_iter().find(|(codes, _)| codes.contains(&code)) {
            let fault = problem(&self.condition("Fault"), severity, "Grave", signal)
                .message(self.said(host))
                .action(action::CONTACT_SUPPORT)
                .clears(&[clear::POLICY]);
            verdicts.push(fault.into());
        }
        let wake = self.wakes.contains(&code).then(|| Wake {
            name: TIMER.to_owned(),
            after_ms: TIMER_MS,
        });
        Ok((verdicts, wake))
    }
}

/// Until its deadline.
fn busy() {
    let mut x = 1_u64;
    loop {
        x = black_box(x.wrapping_mul(3));
    }
}

/// The device on which the host tries a version before it may judge.
const TRIED_ON: &str = "GPU-00000000-0000-0000-0000-000000000000";

impl Policy for Tally {
    fn configure(_config: &str) -> Result<(Self, Info), String> {
        // The optimiser knows what is written here, and must not use it.
        let settings = black_box(&SETTINGS);
        let end = settings.iter().position(|byte| *byte == 0);
        let settings = settings.get(..end.unwrap_or(0)).unwrap_or_default();
        let tally = Self::parse(&String::from_utf8_lossy(settings))?;
        let info = info(&tally.name, &tally.version)
            .state_schema(tally.schema)
            .subscribe(subscribe::all(kind::XID))
            .subscribe(subscribe::all(kind::TIMER))
            .owns(&tally.condition("Count"), false, &["Counted"])
            .owns(&tally.condition("Timer"), false, &["Reminded"])
            .owns(&tally.condition("Fault"), true, &["Grave"]);
        if tally.counts_found {
            let info = info.subscribe(subscribe::all(kind::GPU_FOUND)).owns(
                &tally.condition("Found"),
                false,
                &["Counted"],
            );
            return Ok((tally, info));
        }
        Ok((tally, info))
    }

    fn evaluate(
        &self,
        host: &mut dyn Host,
        device: &Device,
        signals: &[Signal],
    ) -> Result<Decision, String> {
        let mut decision = Decision::default();
        if device.uuid == TRIED_ON && !(self.traps.is_empty() && self.busy.is_empty()) {
            return Ok(decision);
        }
        for signal in signals {
            let (verdicts, wake) = self.one(host, signal)?;
            decision.verdicts.extend(verdicts);
            if let Some(wake) = wake {
                decision.wakes.retain(|other| other.name != wake.name);
                decision.wakes.push(wake);
            }
        }
        decision.verdicts = newest(decision.verdicts, signals);
        Ok(decision)
    }
}

device_policy_sdk::export!(Tally);
