//! `devicectl incidents`: the faults of this node, each once.

use std::collections::BTreeMap;
use std::io::{self, Write};

use device_api_proto::native::{
    Gpu, Incident, IncidentAccount, IncidentState, IncidentVerdict, ListIncidentsRequest, Severity,
};
use serde::Serialize;

use super::resolve;
use crate::args::{Args, Format, Selectors};
use crate::client::{Client, qualified};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Cell, Paint};
use crate::view::OwnerView;
use crate::words::{self, rfc3339};

const HEADS: [&str; 9] = [
    "ID", "GPU", "FAULT", "STATE", "COUNT", "FIRST", "LAST", "ROOT", "SOURCES",
];
const HEADS_WIDE: [&str; 11] = [
    "ID", "GPU", "FAULT", "STATE", "COUNT", "FIRST", "LAST", "ROOT", "SOURCES", "VERDICTS",
    "EVIDENCE",
];

/// The names of GPUs by their UUIDs.
type Names = BTreeMap<String, String>;

pub(super) async fn run<W: Write>(
    args: &Args,
    gpu: Option<&str>,
    all: bool,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let listed = client.list(&Selectors::default()).await?;
    let gpu = gpu.map(|name| resolve(&listed.gpus, name)).transpose()?;
    let state = if all {
        IncidentState::Unspecified
    } else {
        IncidentState::Open
    };
    let wanted = ListIncidentsRequest {
        device: gpu.map(uuid).unwrap_or_default().to_owned(),
        state: state.into(),
        ..ListIncidentsRequest::default()
    };
    let incidents = client.incidents(wanted).await?;
    let names = listed.gpus.iter();
    let names = names.map(|gpu| (uuid(gpu).to_owned(), qualified(gpu)));
    let names: Names = names.collect();
    match args.output {
        Format::Json => out.json(&IncidentsView::of(&incidents, &names)),
        Format::Yaml => out.yaml(&IncidentsView::of(&incidents, &names), false),
        Format::Table | Format::Wide => {
            let now = jiff::Timestamp::now();
            let wide = args.output == Format::Wide;
            out.print(|to, colour| {
                if incidents.is_empty() {
                    let which = if all { "" } else { " is open" };
                    return writeln!(to, "No incident{which}.");
                }
                print(to, &incidents, &names, now, wide, colour)
            })
        }
    }
}

fn uuid(gpu: &Gpu) -> &str {
    gpu.spec.as_ref().map_or("", |spec| &spec.uuid)
}

fn print(
    to: &mut dyn Write,
    incidents: &[Incident],
    names: &Names,
    now: jiff::Timestamp,
    wide: bool,
    colour: bool,
) -> io::Result<()> {
    let heads: &[&str] = if wide { &HEADS_WIDE } else { &HEADS };
    let rows = incidents.iter().map(|one| row(one, names, now, wide));
    table::write(to, heads, &rows.collect::<Vec<_>>(), colour)
}

fn row(incident: &Incident, names: &Names, now: jiff::Timestamp, wide: bool) -> Vec<Cell> {
    let ago =
        |time: Option<&prost_types::Timestamp>| Cell::new(&table::age(words::timestamp(time), now));
    let (state, paint) = match incident.state() {
        IncidentState::Open => ("open".to_owned(), Some(Paint::Bad)),
        IncidentState::Closed => (format!("closed: {}", incident.closed_by), None),
        IncidentState::Unspecified => ("unspecified".to_owned(), None),
    };
    let root = (incident.root != 0).then(|| incident.root.to_string());
    let sources: Vec<_> = incident.accounts.iter().map(|one| &*one.source).collect();
    let device = names.get(&incident.device).unwrap_or(&incident.device);
    let mut row = vec![
        Cell::new(&incident.id.to_string()),
        Cell::new(device),
        Cell::new(&fault(incident)),
        Cell::painted(&state, paint),
        Cell::new(&incident.count.to_string()),
        ago(incident.first_seen_time.as_ref()),
        ago(incident.last_seen_time.as_ref()),
        Cell::new(&root.unwrap_or_default()),
        Cell::new(&sources.join(",")),
    ];
    if wide {
        let verdicts: Vec<_> = incident.verdicts.iter().map(in_short).collect();
        let first = incident.accounts.first();
        row.push(Cell::new(&verdicts.join(", ")));
        row.push(Cell::new(first.map_or("", |account| &account.evidence)));
    }
    row
}

/// As in `xid 79`, with the instance that it is attributed to.
fn fault(incident: &Incident) -> String {
    let code = incident.code.map(|code| format!(" {code}"));
    let on = match &*incident.instance {
        "" => String::new(),
        instance => format!(" on {instance}"),
    };
    let drill = if incident.drill { " (drill)" } else { "" };
    let kind = &incident.kind;
    format!("{kind}{}{on}{drill}", code.unwrap_or_default())
}

/// As in `XidCriticalError: FallenOffTheBus (fatal)`.
fn in_short(verdict: &IncidentVerdict) -> String {
    let how = match &*verdict.judgement {
        "problem" => severity(verdict.severity()),
        other => other,
    };
    format!("{}: {} ({how})", verdict.condition_type, verdict.reason)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Fatal => "fatal",
        Severity::Unspecified => "unspecified",
    }
}

/// What `-o json` prints; the rules are those of [`crate::view`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IncidentsView {
    incidents: Vec<IncidentView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct IncidentView {
    id: u64,
    /// Its name in the API, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<String>,
    /// Its UUID.
    device: String,
    kind: String,
    /// Where its kind is xid.
    #[serde(skip_serializing_if = "Option::is_none")]
    xid: Option<u64>,
    /// Where its kind is sxid.
    #[serde(skip_serializing_if = "Option::is_none")]
    sxid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_time: Option<String>,
    count: u64,
    drill: bool,
    sources: Vec<String>,
    evidence: Vec<AccountView>,
    verdicts: Vec<VerdictView>,
    /// open or closed.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    closed_by: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AccountView {
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen_time: Option<String>,
    count: u64,
    text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VerdictView {
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerView>,
    condition: String,
    judgement: String,
    severity: &'static str,
    reason: String,
}

impl IncidentsView {
    fn of(incidents: &[Incident], names: &Names) -> Self {
        let incidents = incidents.iter().map(|one| IncidentView::of(one, names));
        Self {
            incidents: incidents.collect(),
        }
    }
}

impl IncidentView {
    fn of(incident: &Incident, names: &Names) -> Self {
        let code = |kind: &str| incident.code.filter(|_| incident.kind == kind);
        let sources = incident.accounts.iter().map(|one| one.source.clone());
        Self {
            id: incident.id,
            gpu: names.get(&incident.device).cloned(),
            device: incident.device.clone(),
            kind: incident.kind.clone(),
            xid: code("xid"),
            sxid: code("sxid"),
            root: (incident.root != 0).then_some(incident.root),
            instance: incident.instance.clone(),
            first_seen_time: rfc3339(incident.first_seen_time.as_ref()),
            last_seen_time: rfc3339(incident.last_seen_time.as_ref()),
            count: incident.count,
            drill: incident.drill,
            sources: sources.collect(),
            evidence: incident.accounts.iter().map(AccountView::of).collect(),
            verdicts: incident.verdicts.iter().map(VerdictView::of).collect(),
            state: match incident.state() {
                IncidentState::Open => "open",
                IncidentState::Closed => "closed",
                IncidentState::Unspecified => "unspecified",
            },
            closed_time: rfc3339(incident.closed_time.as_ref()),
            closed_by: incident.closed_by.clone(),
        }
    }
}

impl AccountView {
    fn of(account: &IncidentAccount) -> Self {
        Self {
            source: account.source.clone(),
            first_seen_time: rfc3339(account.first_seen_time.as_ref()),
            last_seen_time: rfc3339(account.last_seen_time.as_ref()),
            count: account.count,
            text: account.evidence.clone(),
        }
    }
}

impl VerdictView {
    fn of(verdict: &IncidentVerdict) -> Self {
        Self {
            owner: verdict.owner.as_ref().map(OwnerView::from),
            condition: verdict.condition_type.clone(),
            judgement: verdict.judgement.clone(),
            severity: severity(verdict.severity()),
            reason: verdict.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use device_api_proto::native::{Owner, owner};

    use super::*;

    fn incident() -> Incident {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let account = |source: &str, evidence: &str| IncidentAccount {
            source: source.to_owned(),
            first_seen_time: at(400),
            last_seen_time: at(900),
            count: 2,
            evidence: evidence.to_owned(),
        };
        Incident {
            id: 7,
            device: "GPU-1".to_owned(),
            kind: "xid".to_owned(),
            code: Some(63),
            root: 6,
            first_seen_time: at(400),
            last_seen_time: at(900),
            count: 4,
            drill: true,
            accounts: vec![account("nvml", "XID 63\u{1b}[2J"), account("kmsg", "NVRM")],
            verdicts: vec![IncidentVerdict {
                owner: Some(Owner {
                    kind: owner::Kind::Policy.into(),
                    name: "xid-policy".to_owned(),
                    ..Owner::default()
                }),
                condition_type: "XidWarning".to_owned(),
                judgement: "problem".to_owned(),
                severity: Severity::Warning.into(),
                reason: "RowRemap".to_owned(),
            }],
            state: IncidentState::Closed.into(),
            closed_time: at(950),
            closed_by: "gpu-reset".to_owned(),
            ..Incident::default()
        }
    }

    #[test]
    fn n5_a_row_tells_of_one_fault_whatever_told_of_it() {
        let now = jiff::Timestamp::from_second(1_000).unwrap();
        let names = Names::from([("GPU-1".to_owned(), "other/GPU-1".to_owned())]);
        let row = row(&incident(), &names, now, true);
        let row: Vec<_> = row.iter().map(|cell| cell.text.as_str()).collect();
        let expected = [
            "7",
            "other/GPU-1",
            "xid 63 (drill)",
            "closed: gpu-reset",
            "4",
            "10m",
            "100s",
            "6",
            "nvml,kmsg",
            "XidWarning: RowRemap (warning)",
            "XID 63\\u{1b}[2J",
        ];
        assert_eq!(row, expected);
    }

    #[test]
    fn n5_programs_get_all_of_it() {
        let view = IncidentsView::of(&[incident()], &Names::new());
        let value = serde_json::to_value(view).unwrap();
        let one = &value["incidents"][0];
        assert_eq!((&one["xid"], &one["root"]), (&63.into(), &6.into()));
        assert_eq!(one["sources"], serde_json::json!(["nvml", "kmsg"]));
        assert_eq!(one["evidence"][1]["text"], "NVRM");
        assert_eq!(one["evidence"][0]["count"], 2);
        assert_eq!(one["verdicts"][0]["owner"]["name"], "xid-policy");
        assert_eq!(
            (&one["state"], &one["closedBy"]),
            (&"closed".into(), &"gpu-reset".into())
        );
        assert!(
            one.get("sxid").is_none() && one.get("gpu").is_none(),
            "{one}"
        );
    }
}
