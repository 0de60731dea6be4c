//! `devicectl watch`: every change, one line each.
//!
//! ```text
//!            ┌───────────────────────────────────────────────────────┐
//!            ▼                                                       │
//!  connect ─▶ watch after the newest version seen ─▶ events ─ lost ──┤ back-off, told once on stderr
//!               │                                                    │
//!               └─ OUT_OF_RANGE: list, print what differs from what was shown ─▶ watch after the list
//! ```
//!
//! With `--exact`, OUT_OF_RANGE ends it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use device_api_proto::native::{EventType, Gpu, ListGpusResponse, WatchGpusResponse};

use crate::args::{Format, Selectors};
use crate::client::{Client, qualified};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Cell};
use crate::text::escape;
use crate::view::{EventView, GpuView};
use crate::words;

/// Back-off while the daemon is away.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

const HEADS: [&str; 7] = [
    "TIME", "TYPE", "INDEX", "NAME", "HEALTH", "ACTION", "REASON",
];
const HEADS_WIDE: [&str; 10] = [
    "TIME",
    "TYPE",
    "INDEX",
    "NAME",
    "HEALTH",
    "ACTION",
    "PCI",
    "CONDITION",
    "VERSION",
    "REASON",
];
/// A stream can't be measured first: widths of a UUID and of the longest words.
const WIDTHS: [usize; 7] = [24, 8, 5, 40, 9, 15, 0];
const WIDTHS_WIDE: [usize; 10] = [24, 8, 5, 40, 9, 15, 12, 20, 16, 0];

/// What is to be watched, and how it is shown.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) socket: &'a Path,
    pub(super) output: Format,
    pub(super) selectors: &'a Selectors,
    pub(super) exact: bool,
    pub(super) bookmarks: bool,
}

pub(super) async fn run<W: Write>(wanted: &Wanted<'_>, out: &mut Output<W>) -> Result<(), Failure> {
    // Only a daemon that was there once is waited for.
    let mut client = Client::connect(wanted.socket).await?;
    heads(wanted.output, out)?;
    let mut seen = Seen::default();
    let mut delay = RETRY_MIN;
    // The first new list is followed at once: meanwhile nobody tells us of changes.
    let mut delay_after_list = Duration::ZERO;
    loop {
        let resumed_after = seen.version;
        let mut ended = follow(wanted, &mut client, &mut seen, out).await;
        if seen.version != resumed_after {
            (delay, delay_after_list) = (RETRY_MIN, Duration::ZERO);
        }
        // A new list tells what there is, and not each change: whoever wants those has missed some.
        if ended.as_ref().is_err_and(Failure::is_out_of_range) && !wanted.exact {
            tell(&format!(
                "version {} is out of the daemon's history; listing again",
                seen.version
            ));
            ended = relist(wanted, &mut client, &mut seen, out).await;
            if ended.is_ok() {
                pause(&mut delay_after_list).await;
                continue;
            }
        }
        let why = match ended {
            Ok(()) => "the stream ended".to_owned(),
            Err(failure) if failure.is_final() || failure.is_out_of_range() => return Err(failure),
            Err(failure) => failure.to_string(),
        };
        tell(&format!("watch interrupted ({why}); reconnecting"));
        client = reconnect(wanted, &mut delay).await?;
        tell(&format!(
            "connected again, resuming after version {}",
            seen.version
        ));
    }
}

async fn reconnect(wanted: &Wanted<'_>, delay: &mut Duration) -> Result<Client, Failure> {
    loop {
        pause(delay).await;
        match Client::connect(wanted.socket).await {
            Err(failure) if !failure.is_final() => {}
            done => return done,
        }
    }
}

async fn pause(delay: &mut Duration) {
    tokio::time::sleep(*delay).await;
    *delay = (*delay * 2).clamp(RETRY_MIN, RETRY_MAX);
}

/// Prints changes until the stream ends.
async fn follow<W: Write>(
    wanted: &Wanted<'_>,
    client: &mut Client,
    seen: &mut Seen,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut stream = client
        .watch(seen.version, wanted.selectors, wanted.exact)
        .await?;
    while let Some(event) = stream.message().await? {
        if event.r#type() == EventType::Bookmark {
            seen.version = seen.version.max(event.resource_version);
            if wanted.bookmarks {
                print_bookmark(wanted.output, &event, out)?;
            }
        } else if let Some(change) = seen.take(event) {
            print(wanted.output, &change, out)?;
        }
    }
    Ok(())
}

/// Our version is not in the daemon's history: what is new is found by comparing.
async fn relist<W: Write>(
    wanted: &Wanted<'_>,
    client: &mut Client,
    seen: &mut Seen,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let listed = client.list(wanted.selectors).await?;
    seen.relist(listed)
        .iter()
        .try_for_each(|change| print(wanted.output, change, out))
}

/// A change as it is shown.
#[derive(Debug, PartialEq)]
struct Change {
    kind: EventType,
    gpu: Gpu,
}

/// What was shown: where to resume, and what a new list is compared with. Bounded by the daemon's
/// number of GPUs.
#[derive(Debug, Default)]
struct Seen {
    version: i64,
    gpus: BTreeMap<(String, String), Gpu>,
}

impl Seen {
    fn take(&mut self, event: WatchGpusResponse) -> Option<Change> {
        let kind = event.r#type();
        let gpu = event.gpu?;
        self.version = self.version.max(gpu.resource_version);
        let key = (gpu.namespace.clone(), gpu.name.clone());
        if kind == EventType::Deleted {
            self.gpus.remove(&key);
        } else {
            self.gpus.insert(key, gpu.clone());
        }
        Some(Change { kind, gpu })
    }

    /// What a new list tells: the differences, deletions first.
    fn relist(&mut self, listed: ListGpusResponse) -> Vec<Change> {
        let mut before = std::mem::take(&mut self.gpus);
        let mut changes = Vec::new();
        for gpu in listed.gpus {
            let key = (gpu.namespace.clone(), gpu.name.clone());
            let old = before.remove(&key);
            let kind = match &old {
                None => Some(EventType::Added),
                Some(old) if old.uid != gpu.uid || old.resource_version != gpu.resource_version => {
                    Some(EventType::Modified)
                }
                Some(_) => None,
            };
            changes.extend(kind.map(|kind| Change {
                kind,
                gpu: gpu.clone(),
            }));
            self.gpus.insert(key, gpu);
        }
        self.version = listed.resource_version;
        let deleted = before.into_values().map(|gpu| Change {
            kind: EventType::Deleted,
            gpu,
        });
        deleted.chain(changes).collect()
    }
}

fn heads<W: Write>(format: Format, out: &mut Output<W>) -> Result<(), Failure> {
    let (heads, widths): (&[&str], &[usize]) = match format {
        Format::Table => (&HEADS, &WIDTHS),
        Format::Wide => (&HEADS_WIDE, &WIDTHS_WIDE),
        Format::Json | Format::Yaml => return Ok(()),
    };
    let row: Vec<Cell> = heads.iter().map(|head| Cell::new(head)).collect();
    out.print(|to, colour| table::write_row(to, &row, widths, colour))
}

fn print<W: Write>(format: Format, change: &Change, out: &mut Output<W>) -> Result<(), Failure> {
    let time = now_ms();
    let event = || EventView {
        time: time.clone(),
        r#type: words::event_type(change.kind),
        resource_version: change.gpu.resource_version.to_string(),
        initial_state_end: false,
        gpu: Some(GpuView::from(&change.gpu)),
    };
    match format {
        Format::Table => out
            .print(|to, colour| table::write_row(to, &row(change, &time, false), &WIDTHS, colour)),
        Format::Wide => out.print(|to, colour| {
            table::write_row(to, &row(change, &time, true), &WIDTHS_WIDE, colour)
        }),
        Format::Json => out.json_line(&event()),
        Format::Yaml => out.yaml(&event(), true),
    }
}

/// How far all was told: a line without a GPU.
fn print_bookmark<W: Write>(
    format: Format,
    event: &WatchGpusResponse,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let (time, type_) = (now_ms(), words::event_type(EventType::Bookmark));
    let version = event.resource_version;
    let said = if event.initial_state_end {
        format!("the state at the start is told, as of version {version}")
    } else {
        format!("nothing more to tell up to version {version}")
    };
    let line = |widths: &[usize]| {
        let mut row = vec![Cell::default(); widths.len()];
        for (cell, text) in row.iter_mut().zip([&*time, type_]) {
            *cell = Cell::new(text);
        }
        if let Some(last) = row.last_mut() {
            *last = Cell::new(&said);
        }
        row
    };
    let view = || EventView {
        time: time.clone(),
        r#type: type_,
        resource_version: version.to_string(),
        initial_state_end: event.initial_state_end,
        gpu: None,
    };
    match format {
        Format::Table => {
            out.print(|to, colour| table::write_row(to, &line(&WIDTHS), &WIDTHS, colour))
        }
        Format::Wide => {
            out.print(|to, colour| table::write_row(to, &line(&WIDTHS_WIDE), &WIDTHS_WIDE, colour))
        }
        Format::Json => out.json_line(&view()),
        Format::Yaml => out.yaml(&view(), true),
    }
}

fn row(change: &Change, time: &str, wide: bool) -> Vec<Cell> {
    let gpu = &change.gpu;
    let mut row = vec![
        Cell::new(time),
        Cell::new(words::event_type(change.kind)),
        table::index(gpu),
        Cell::new(&qualified(gpu)),
        table::health(gpu),
        table::action(gpu),
    ];
    if wide {
        let decider = gpu
            .status
            .as_ref()
            .map_or("", |status| status.health_condition.as_str());
        row.extend([
            Cell::new(
                gpu.spec
                    .as_ref()
                    .map_or("", |spec| spec.pci_address.as_str()),
            ),
            Cell::new(decider),
            Cell::new(&gpu.resource_version.to_string()),
        ]);
    }
    row.push(Cell::new(&table::reason(gpu)));
    row
}

/// Now, in milliseconds: as wide in every line.
fn now_ms() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Tells a person, without getting into the output. Where stderr is gone there is nobody to tell.
fn tell(message: &str) {
    let _: io::Result<()> = writeln!(io::stderr(), "devicectl: {}", escape(message));
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
