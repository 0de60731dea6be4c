//! `devicectl nvml status|release|attach`: the driver's library, let go of and taken up again.

use std::io::{self, Write};

use device_api_proto::native::{
    GetNvmlStatusResponse, HungNvmlCall, NvmlReleasePurpose, NvmlState, ReleaseNvmlRequest,
};
use serde::Serialize;

use crate::args::{Args, Format, NvmlCommand, Purpose};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Cell, Paint};
use crate::text::escape;
use crate::words::rfc3339;

pub(super) async fn run<W: Write>(
    args: &Args,
    command: &NvmlCommand,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let mut missing = None;
    match command {
        NvmlCommand::Status => {}
        NvmlCommand::Attach { no_wait } => {
            let answer = client.attach_nvml(*no_wait).await?;
            let is_told = *no_wait || answer.state() == NvmlState::Ready;
            missing = (!is_told).then_some(answer.detail);
        }
        NvmlCommand::Release { purpose, ttl } => {
            let purpose = match purpose {
                Purpose::Reset => NvmlReleasePurpose::Reset,
                Purpose::Upgrade => NvmlReleasePurpose::Upgrade,
            };
            // What is too long for the wire is for the daemon to refuse.
            let ttl = prost_types::Duration::try_from(*ttl).unwrap_or(prost_types::Duration {
                seconds: i64::MAX,
                nanos: 0,
            });
            let request = ReleaseNvmlRequest {
                purpose: purpose.into(),
                ttl: Some(ttl),
            };
            let answer = client.release_nvml(request).await?;
            if let Some(call) = &answer.busy {
                return Err(Failure::NvmlBusy { hung: hung(call) });
            }
            if answer.released_until.is_none() {
                return Err(Failure::Overtaken);
            }
        }
    }
    let status = client.nvml_status().await?;
    let view = NvmlView::of(&status);
    match args.output {
        Format::Json => out.json(&view),
        Format::Yaml => out.yaml(&view, false),
        Format::Table | Format::Wide => out.print(|to, colour| print(to, &status, colour)),
    }?;
    let failure = |why: String| Failure::NotAttached {
        why: escape(&why).into_owned(),
    };
    missing.map(failure).map_or(Ok(()), Err)
}

/// What `-o json` prints; the rules are those of [`crate::view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NvmlView {
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    library: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    driver_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus: Option<u32>,
    simulated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    release_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    released_until: Option<String>,
    hung_calls: Vec<HungView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HungView {
    call: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    device: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    age_seconds: f64,
}

impl NvmlView {
    fn of(status: &GetNvmlStatusResponse) -> Self {
        let hung = |call: &HungNvmlCall| HungView {
            call: call.call.clone(),
            device: call.device.clone(),
            peer: call.peer.clone(),
            index: call.index,
            age_seconds: age(call),
        };
        Self {
            state: state(status.state()),
            detail: status.detail.clone(),
            library: status.library.clone(),
            driver_version: status.driver_version.clone(),
            gpus: status.gpus,
            simulated: status.simulated,
            release_purpose: purpose(status.release_purpose()),
            released_until: rfc3339(status.released_until.as_ref()),
            hung_calls: status.hung_calls.iter().map(hung).collect(),
        }
    }
}

fn state(state: NvmlState) -> &'static str {
    match state {
        NvmlState::Disabled => "disabled",
        NvmlState::Missing => "missing",
        NvmlState::Released => "released",
        NvmlState::Ready => "ready",
        NvmlState::Unspecified => "unspecified",
    }
}

fn purpose(purpose: NvmlReleasePurpose) -> Option<&'static str> {
    match purpose {
        NvmlReleasePurpose::Reset => Some("reset"),
        NvmlReleasePurpose::Upgrade => Some("upgrade"),
        NvmlReleasePurpose::Unspecified => None,
    }
}

fn age(call: &HungNvmlCall) -> f64 {
    let age = call.age.unwrap_or_default();
    age.seconds as f64 + f64::from(age.nanos) / 1e9
}

/// Call, GPU and age, in a line.
fn hung(call: &HungNvmlCall) -> String {
    let on = match (&*call.device, &*call.peer, call.index) {
        ("", _, Some(index)) => format!(" on the GPU at index {index}"),
        ("", _, None) => String::new(),
        (device, "", _) => format!(" on {device}"),
        (device, peer, _) => format!(" on {device} and {peer}"),
    };
    format!("{}{on} has hung for {:.1} s", call.call, age(call))
}

fn print(to: &mut dyn Write, status: &GetNvmlStatusResponse, colour: bool) -> io::Result<()> {
    let paint = match status.state() {
        NvmlState::Ready => Paint::Good,
        NvmlState::Missing | NvmlState::Released => Paint::Warning,
        NvmlState::Disabled | NvmlState::Unspecified => Paint::Faint,
    };
    let word = Cell::painted(state(status.state()), Some(paint)).show(colour);
    writeln!(to, "{:<12}{word}", "State:")?;
    let gpus = status.gpus.map(|gpus| gpus.to_string());
    let simulated = if status.simulated {
        "yes: whatever it tells is a drill"
    } else {
        ""
    };
    let facts = [
        ("Why", status.detail.clone()),
        ("Library", status.library.clone()),
        ("Driver", status.driver_version.clone()),
        ("GPUs", gpus.unwrap_or_default()),
        ("Simulated", simulated.to_owned()),
        (
            "For",
            purpose(status.release_purpose())
                .unwrap_or_default()
                .to_owned(),
        ),
        (
            "Until",
            rfc3339(status.released_until.as_ref()).unwrap_or_default(),
        ),
    ];
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    for (key, value) in facts {
        writeln!(to, "{:<12}{}", format!("{key}:"), escape(&value))?;
    }
    status
        .hung_calls
        .iter()
        .try_for_each(|call| writeln!(to, "{:<12}{}", "Hangs:", escape(&hung(call))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: &GetNvmlStatusResponse) -> String {
        let mut out = Vec::new();
        print(&mut out, status, false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn n2_a_status_says_what_belongs_to_its_state_and_which_calls_hang() {
        let status = GetNvmlStatusResponse {
            state: NvmlState::Released.into(),
            release_purpose: NvmlReleasePurpose::Reset.into(),
            released_until: Some(prost_types::Timestamp {
                seconds: 60,
                nanos: 0,
            }),
            hung_calls: vec![HungNvmlCall {
                call: "nvmlX\u{1b}[2J".to_owned(),
                device: "GPU-1".to_owned(),
                age: Some(prost_types::Duration {
                    seconds: 12,
                    nanos: 340_000_000,
                }),
                ..HungNvmlCall::default()
            }],
            ..GetNvmlStatusResponse::default()
        };
        let expected = "\
State:      released
For:        reset
Until:      1970-01-01T00:01:00Z
Hangs:      nvmlX\\u{1b}[2J on GPU-1 has hung for 12.3 s
";
        assert_eq!(shown(&status), expected);
        let value = serde_json::to_value(NvmlView::of(&status)).unwrap();
        assert_eq!(value["releasePurpose"], "reset");
        assert_eq!(value["hungCalls"][0]["ageSeconds"], 12.34);
        assert!(value.get("library").is_none(), "{value}");
        let mut call = status.hung_calls[0].clone();
        call.call = "nvmlX".to_owned();
        call.peer = "GPU-2".to_owned();
        assert_eq!(hung(&call), "nvmlX on GPU-1 and GPU-2 has hung for 12.3 s");
        (call.device, call.peer, call.index) = (String::new(), String::new(), Some(2));
        let at = "nvmlX on the GPU at index 2 has hung for 12.3 s";
        assert_eq!(hung(&call), at);
        let missing = GetNvmlStatusResponse {
            state: NvmlState::Missing.into(),
            detail: "no library".to_owned(),
            ..GetNvmlStatusResponse::default()
        };
        assert_eq!(
            shown(&missing),
            "State:      missing\nWhy:        no library\n"
        );
    }
}
