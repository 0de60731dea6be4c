//! Scenarios: what goes wrong on a node, and when. YAML files; `docs/simulator.md` has the
//! reference, `docs/schemas/nvml-sim-scenario.schema.json` the schema.
//!
//! Strict: what is not understood refuses the file, naming file, line and key. The whole of it is
//! rehearsed on a node that nobody sees before it is played, so that no step is refused half way.

pub(crate) mod play;
mod timeline;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::abi;
use crate::control::{Only, Request, act};
use crate::profile::{GPUS_MAX, Profile};
use crate::sim::Sim;

pub(crate) use timeline::Timeline;

/// Size of a file: a thousand steps.
const FILE_BYTES_MAX: usize = 256 * 1024;
pub(crate) const STEPS_MAX: usize = 1000;
/// Of a scenario: a day.
const MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What goes wrong on a node, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The file's name without its ending.
    pub name: String,
    /// Key of the profile that the node has to have.
    pub profile: String,
    /// How many GPUs it needs.
    pub gpus: u32,
    pub steps: Vec<Step>,
}

/// Commands, and when they are carried out. Steps come one after the other, as in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// In the file, from 1.
    pub line: u64,
    pub when: When,
    pub commands: Vec<Request>,
}

/// When a step's turn comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Milliseconds after the scenario began, on the simulator's clock.
    At(u64),
    /// Milliseconds after the step before.
    After(u64),
    /// Someone has NVML initialised.
    Initialised,
    /// Nobody has.
    Released,
    /// Someone listens to NVML's events.
    Listening,
    /// At the next call of that symbol, about that GPU where it is named.
    Call { call: String, gpu: Option<u32> },
}

/// Why a file is refused: `FILE:LINE: KEY: what, and what to do`.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("can't read {} ({source}): give a scenario file", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}:{line}: {reason}", path.display())]
    Refused {
        path: PathBuf,
        line: u64,
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    profile: Spanned<String>,
    gpus: Spanned<u32>,
    steps: Vec<Spanned<Item>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    at: Option<Spanned<String>>,
    after: Option<Spanned<String>>,
    when: Option<Spanned<Value>>,
    #[serde(rename = "do")]
    commands: Vec<Spanned<Value>>,
}

/// Line and reason.
type Refusal = (u64, String);

/// Reads and rehearses a file.
///
/// # Errors
/// It can't be read, or is refused.
pub fn read(path: &Path) -> Result<Scenario, ScenarioError> {
    let text = fs::read_to_string(path).map_err(|source| ScenarioError::Read {
        path: path.to_owned(),
        source,
    })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &text).map_err(|(line, reason)| ScenarioError::Refused {
        path: path.to_owned(),
        line,
        reason,
    })
}

fn parse(name: &str, text: &str) -> Result<Scenario, Refusal> {
    if text.len() > FILE_BYTES_MAX {
        return Err((
            1,
            format!("more than {FILE_BYTES_MAX} bytes: is it the right file?"),
        ));
    }
    let document: Document = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let plain = error.without_snippet().to_string();
        (
            line,
            plain.lines().map(str::trim).collect::<Vec<_>>().join(" "),
        )
    })?;
    let Document {
        profile,
        gpus,
        steps,
    } = document;
    let known = Profile::named(&profile.value).ok_or_else(|| {
        let reason = format!(
            "profile: {} is none: use one of {}",
            profile.value,
            Profile::keys()
        );
        (profile.referenced.line(), reason)
    })?;
    if !(1..=GPUS_MAX).contains(&gpus.value) {
        let reason = format!("gpus: {} is no count: use 1 to {GPUS_MAX}", gpus.value);
        return Err((gpus.referenced.line(), reason));
    }
    if steps.len() > STEPS_MAX {
        return Err((
            1,
            format!("steps: {} of them: at most {STEPS_MAX}", steps.len()),
        ));
    }
    let rehearsal = Sim::scratch(known, gpus.value);
    let mut scenario = Scenario {
        name: name.to_owned(),
        profile: profile.value,
        gpus: gpus.value,
        steps: Vec::with_capacity(steps.len()),
    };
    let mut last_ms = 0;
    for item in steps {
        let step = step(item, &rehearsal)?;
        if let When::At(ms) = step.when {
            if ms < last_ms {
                let reason =
                    format!("at: {ms} ms is before the step above, at {last_ms} ms: put it first");
                return Err((step.line, reason));
            }
            last_ms = ms;
        }
        scenario.steps.push(step);
    }
    Ok(scenario)
}

fn step(item: Spanned<Item>, rehearsal: &Sim) -> Result<Step, Refusal> {
    let line = item.referenced.line();
    let Item {
        at,
        after,
        when,
        commands,
    } = item.value;
    let moment = |key: &str, text: &Spanned<String>| {
        let ms = milliseconds(&text.value);
        ms.map_err(|reason| (text.referenced.line(), format!("{key}: {reason}")))
    };
    let when = match (&at, &after, when) {
        (Some(at), None, None) => When::At(moment("at", at)?),
        (None, Some(after), None) => When::After(moment("after", after)?),
        (None, None, Some(when)) => trigger(&when.value, rehearsal)
            .map_err(|reason| (when.referenced.line(), format!("when: {reason}")))?,
        (None, None, None) => When::After(0),
        _ => return Err((line, "at, after, when: a step has one of them".to_owned())),
    };
    let mut requests = Vec::with_capacity(commands.len());
    for command in commands {
        let line = command.referenced.line();
        let request = request(command.value).map_err(|reason| (line, format!("do: {reason}")))?;
        let name = request.name();
        if !request.is_scripted() {
            return Err((line, format!("do: {name}: not in a scenario")));
        }
        act::step(rehearsal, request.clone())
            .map_err(|reason| (line, format!("do: {name}: {reason}")))?;
        requests.push(request);
    }
    Ok(Step {
        line,
        when,
        commands: requests,
    })
}

/// `xid: {gpu: 3, codes: [79]}`, or a lone word such as `unload`.
fn request(value: Value) -> Result<Request, String> {
    let (name, mut fields) = match value {
        Value::String(name) => (name, serde_json::Map::new()),
        Value::Object(command) => match (command.len(), command.into_iter().next()) {
            (1, Some((name, Value::Object(fields)))) => (name, fields),
            (1, Some((name, Value::Null))) => (name, serde_json::Map::new()),
            (1, Some((name, other))) => {
                return Err(format!(
                    "{name}: {other} are no arguments: write {{gpu: 0}}"
                ));
            }
            _ => return Err("a command has one name: put a dash before each".to_owned()),
        },
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
            return Err(format!(
                "{other} is no command: write xid: {{gpu: 0, codes: [79]}}"
            ));
        }
    };
    let given: Vec<String> = fields.keys().cloned().collect();
    fields.insert("command".to_owned(), Value::String(name.clone()));
    let request: Request = serde_json::from_value(Value::Object(fields))
        .map_err(|error| format!("{name}: {error}"))?;
    // A command without arguments takes any: what it has is what it tells.
    let told = serde_json::to_value(&request).unwrap_or_default();
    let unknown = |key: &&String| *key == "command" || told.get(key.as_str()).is_none();
    match given.iter().find(unknown) {
        Some(key) => Err(format!("{name}: unknown field `{key}`")),
        None => Ok(request),
    }
}

fn trigger(value: &Value, rehearsal: &Sim) -> Result<When, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Call {
        call: String,
        gpu: Option<u32>,
    }

    match value.as_str() {
        Some("initialised") => Ok(When::Initialised),
        Some("released") => Ok(When::Released),
        Some("listening") => Ok(When::Listening),
        Some(other) => Err(format!(
            "{other}: use initialised, released, listening or {{call: NAME}}"
        )),
        None => {
            let Call { call, gpu } = Call::deserialize(value).map_err(|error| error.to_string())?;
            if !abi::exports(&call) {
                return Err(format!(
                    "no call {call}: name a symbol, such as nvmlDeviceGetTemperature"
                ));
            }
            if gpu.is_some_and(|gpu| rehearsal.lock().gpu(gpu).is_none()) {
                return Err("gpu: there is none of that index".to_owned());
            }
            Ok(When::Call { call, gpu })
        }
    }
}

/// Reads `200ms`, `1.5s`, `2m`.
fn milliseconds(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = UNITS
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let seconds = unit.and_then(|(number, unit)| Some(number.parse::<f64>().ok()? * unit));
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Binary fractions of a second fall just short of the millisecond that was written.
    let rounded = time.map(|time| time.saturating_add(Duration::from_micros(500)).as_millis());
    rounded
        .and_then(|ms| u64::try_from(ms).ok())
        .filter(|ms| *ms <= MS_MAX)
        .ok_or_else(|| format!("{text} is no time: write 200ms, 1.5s or 2m, a day at most"))
}

impl Scenario {
    pub(crate) fn profile(&self) -> &'static Profile {
        Profile::named(&self.profile).unwrap_or_else(Profile::standard)
    }

    /// # Errors
    /// The node is of another profile, or has too few GPUs.
    pub(crate) fn fits(&self, profile: &Profile, gpus: u32) -> Result<(), String> {
        if profile.key != self.profile || gpus < self.gpus {
            return Err(format!(
                "{} is for {} GPUs of profile {}, and this node has {gpus} of {}: start it with \
                 NVML_SIM_PROFILE={} and NVML_SIM_GPUS={}",
                self.name, self.gpus, self.profile, profile.key, self.profile, self.gpus
            ));
        }
        Ok(())
    }
}

impl Request {
    /// Its name on the wire.
    pub(crate) fn name(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        let name = value.get("command").and_then(Value::as_str);
        name.unwrap_or_default().to_owned()
    }

    /// Whether it can't be carried out without one.
    pub(crate) fn needs_kernel_log(&self) -> bool {
        let only_kmsg = |only: &Option<Only>| *only == Some(Only::Kmsg);
        matches!(self, Self::Kmsg { .. })
            || matches!(self, Self::Xid { only, .. } | Self::MigXid { only, .. } if only_kmsg(only))
    }

    /// Whether a scenario may have it as a step.
    pub(crate) fn is_scripted(&self) -> bool {
        !matches!(
            self,
            Self::Play { .. } | Self::Advance { .. } | Self::Stop | Self::Status
        )
    }
}

/// The scenarios that ship with the simulator, by name.
pub fn shipped(folder: &Path) -> std::io::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            found.insert(name.into_owned(), path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
