//! `devicectl watch`: every change, one line each.
//!
//! ```text
//!            ┌───────────────────────────────────────────────────────┐
//!            ▼                                                       │
//!  connect ─▶ watch after the newest version seen ─▶ events ─ lost ──┤ back-off, told once on stderr
//!               │                                                    │
//!               └─ OUT_OF_RANGE: list, print what differs from what was shown ─▶ watch after the list
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use device_api_proto::native::{EventType, Gpu, ListGpusResponse, WatchGpusResponse};

use crate::args::{Args, Format};
use crate::client::{Client, qualified};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{self, Cell};
use crate::text::escape;
use crate::view::{self, EventView, GpuView};

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

pub(super) async fn run<W: Write>(args: &Args, out: &mut Output<W>) -> Result<(), Failure> {
    // Only a daemon that was there once is waited for.
    let mut client = Client::connect(&args.socket).await?;
    heads(args.output, out)?;
    let mut seen = Seen::default();
    let mut delay = RETRY_MIN;
    // The first new list is followed at once: meanwhile nobody tells us of changes.
    let mut delay_after_list = Duration::ZERO;
    loop {
        let resumed_after = seen.version;
        let mut ended = follow(args, &mut client, &mut seen, out).await;
        if seen.version != resumed_after {
            (delay, delay_after_list) = (RETRY_MIN, Duration::ZERO);
        }
        if ended.as_ref().is_err_and(Failure::is_out_of_range) {
            tell(&format!(
                "version {} is out of the daemon's history; listing again",
                seen.version
            ));
            ended = relist(args, &mut client, &mut seen, out).await;
            if ended.is_ok() {
                pause(&mut delay_after_list).await;
                continue;
            }
        }
        let why = match ended {
            Ok(()) => "the stream ended".to_owned(),
            Err(failure) if failure.is_final() => return Err(failure),
            Err(failure) => failure.to_string(),
        };
        tell(&format!("watch interrupted ({why}); reconnecting"));
        client = reconnect(args, &mut delay).await?;
        tell(&format!(
            "connected again, resuming after version {}",
            seen.version
        ));
    }
}

async fn reconnect(args: &Args, delay: &mut Duration) -> Result<Client, Failure> {
    loop {
        pause(delay).await;
        match Client::connect(&args.socket).await {
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
    args: &Args,
    client: &mut Client,
    seen: &mut Seen,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let mut stream = client.watch(seen.version).await?;
    while let Some(event) = stream.message().await? {
        if let Some(change) = seen.take(event) {
            print(args.output, &change, out)?;
        }
    }
    Ok(())
}

/// Our version is not in the daemon's history: what is new is found by comparing.
async fn relist<W: Write>(
    args: &Args,
    client: &mut Client,
    seen: &mut Seen,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let listed = client.list().await?;
    seen.relist(listed)
        .iter()
        .try_for_each(|change| print(args.output, change, out))
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
        r#type: view::event_type(change.kind),
        gpu: GpuView::from(&change.gpu),
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

fn row(change: &Change, time: &str, wide: bool) -> Vec<Cell> {
    let gpu = &change.gpu;
    let mut row = vec![
        Cell::new(time),
        Cell::new(view::event_type(change.kind)),
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
mod tests {
    use super::*;

    fn gpu(name: &str, version: i64) -> Gpu {
        Gpu {
            resource_version: version,
            ..crate::table::tests::gpu(name)
        }
    }

    fn event(kind: EventType, name: &str, version: i64) -> WatchGpusResponse {
        WatchGpusResponse {
            r#type: kind.into(),
            gpu: Some(gpu(name, version)),
        }
    }

    #[test]
    fn w1_a_new_list_shows_exactly_what_changed_meanwhile() {
        let mut seen = Seen::default();
        for (kind, name, version) in [
            (EventType::Added, "a", 1),
            (EventType::Added, "b", 2),
            (EventType::Added, "c", 3),
            (EventType::Added, "d", 4),
            (EventType::Deleted, "d", 5),
        ] {
            assert!(seen.take(event(kind, name, version)).is_some());
        }
        assert_eq!(seen.version, 5);
        let gpus = vec![gpu("a", 1), gpu("b", 101), gpu("d", 102)];
        let changes = seen.relist(ListGpusResponse {
            gpus,
            resource_version: 110,
        });
        let shown: Vec<_> = changes
            .iter()
            .map(|change| (change.kind, change.gpu.name.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (EventType::Deleted, "c"),
                (EventType::Modified, "b"),
                (EventType::Added, "d")
            ]
        );
        assert_eq!(seen.version, 110);
        let gpus = vec![gpu("a", 1), gpu("b", 101), gpu("d", 102)];
        assert_eq!(
            seen.relist(ListGpusResponse {
                gpus,
                resource_version: 110
            }),
            []
        );
    }

    #[test]
    fn lines_of_a_stream_stand_under_their_heads() {
        let mut out = Output {
            to: Vec::new(),
            colour: false,
        };
        heads(Format::Table, &mut out).unwrap();
        let change = Change {
            kind: EventType::Modified,
            gpu: gpu("GPU-6f185d59-caa4-e21b-7e96-c6aba97f1ac9", 9),
        };
        print(Format::Table, &change, &mut out).unwrap();
        let text = String::from_utf8(out.to).unwrap();
        let [heads, line] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        for (head, cell) in [
            ("TYPE", "MODIFIED"),
            ("INDEX", "3       GPU"),
            ("NAME", "GPU-6f"),
            ("HEALTH", "Healthy"),
        ] {
            assert_eq!(heads.find(head), line.find(cell), "{text}");
        }
    }
}
