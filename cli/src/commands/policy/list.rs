//! `devicectl policy list`: a row each, and below it what waits for whoever reads it.

use std::io::{self, Write};

use device_api_proto::native::{
    ListPoliciesResponse, Policy, PolicyCounters, PolicyLatencyBucket, PolicyMode, PolicyPhase,
    PolicySetAside,
};

use super::{short, version};
use crate::args::{Args, Format};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::Output;
use crate::policy_view::PolicyList;
use crate::table::{self, Cell, Paint};
use crate::text::{escape, shell_word};
use crate::words;

const HEADS: [&str; 9] = [
    "NAME", "VERSION", "DIGEST", "MODE", "PHASE", "CALLS", "FAILURES", "P99", "AGE",
];
const HEADS_WIDE: [&str; 15] = [
    "NAME",
    "VERSION",
    "DIGEST",
    "MODE",
    "PHASE",
    "CALLS",
    "FAILURES",
    "P99",
    "AGE",
    "INSTANCES",
    "MEMORY",
    "STATE",
    "SWAPS",
    "DISAGREES",
    "ORIGIN",
];

/// Quarantined versions of one policy that are noted below the table; `describe` has them all.
const QUARANTINED_MAX: usize = 3;

pub(super) async fn run<W: Write>(
    args: &Args,
    client: &mut Client,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let listed = client.policy_list().await?;
    match args.output {
        Format::Json => out.json(&PolicyList::from(&listed)),
        Format::Yaml => out.yaml(&PolicyList::from(&listed), false),
        Format::Table => out.print(|to, colour| all(to, &listed, false, colour)),
        Format::Wide => out.print(|to, colour| all(to, &listed, true, colour)),
    }
}

/// First what concerns them all.
pub(super) fn all(
    to: &mut dyn Write,
    listed: &ListPoliciesResponse,
    wide: bool,
    colour: bool,
) -> io::Result<()> {
    let mut of_all = Vec::new();
    if !listed.refused.is_empty() {
        of_all.push(Note {
            says: format!("The set of policies is refused: {}", listed.refused),
            commands: vec!["devicectl policy reload".to_owned()],
        });
    }
    if !listed.unsaved.is_empty() {
        of_all.push(Note {
            says: format!(
                "What is decided of policies can't be saved, and a restart forgets it: {}",
                listed.unsaved
            ),
            commands: Vec::new(),
        });
    }
    if !listed.damage.is_empty() {
        of_all.push(Note {
            says: listed.damage.clone(),
            commands: Vec::new(),
        });
    }
    show(to, &of_all)?;
    if !of_all.is_empty() {
        writeln!(to)?;
    }
    print(to, &listed.policies, wide, colour)
}

pub(super) fn print(
    to: &mut dyn Write,
    policies: &[Policy],
    wide: bool,
    colour: bool,
) -> io::Result<()> {
    if policies.is_empty() {
        return writeln!(
            to,
            "No policies: the vendor's class of a fault counts (the daemon runs in safe mode, or none could be loaded)."
        );
    }
    let now = jiff::Timestamp::now();
    let rows: Vec<_> = policies
        .iter()
        .map(|policy| row(policy, now, wide))
        .collect();
    let heads: &[&str] = if wide { &HEADS_WIDE } else { &HEADS };
    table::write(to, heads, &rows, colour)?;
    let notes: Vec<Note> = policies.iter().flat_map(notes).collect();
    if !notes.is_empty() {
        writeln!(to)?;
    }
    show(to, &notes)
}

fn show(to: &mut dyn Write, notes: &[Note]) -> io::Result<()> {
    for note in notes {
        writeln!(to, "{}", escape(&note.says))?;
        for command in &note.commands {
            writeln!(to, "    {}", escape(command))?;
        }
    }
    Ok(())
}

fn row(policy: &Policy, now: jiff::Timestamp, wide: bool) -> Vec<Cell> {
    let none = PolicyCounters::default();
    let counters = policy.counters.as_ref().unwrap_or(&none);
    let active = policy.active.as_ref();
    let since = active.and_then(|active| words::timestamp(active.since.as_ref()));
    let failures: u64 = counters.failures.iter().map(|count| count.calls).sum();
    let mut row = vec![
        Cell::new(&policy.name),
        Cell::new(active.map_or("", |active| &active.version)),
        Cell::new(active.map_or("", |active| short(&active.digest))),
        Cell::new(words::policy_mode(policy.mode())),
        phase(policy),
        Cell::new(&counters.calls.to_string()),
        Cell::painted(
            &failures.to_string(),
            (failures != 0).then_some(Paint::Warning),
        ),
        Cell::new(&p99(&counters.latency)),
        Cell::new(&table::age(since, now)),
    ];
    if wide {
        let disagrees = (counters.shadow_compared != 0).then(|| {
            format!(
                "{}/{}",
                counters.shadow_disagreements, counters.shadow_compared
            )
        });
        row.extend([
            Cell::new(&counters.instances.to_string()),
            Cell::new(&kibibytes(counters.memory_bytes_peak)),
            Cell::new(&kibibytes(counters.state_bytes_peak)),
            Cell::new(&counters.swaps.to_string()),
            Cell::new(&disagrees.unwrap_or_default()),
            Cell::new(active.map_or("", |active| &active.origin)),
        ]);
    }
    row
}

pub(super) fn phase(policy: &Policy) -> Cell {
    let paint = match policy.phase() {
        PolicyPhase::Running => Paint::Good,
        PolicyPhase::BackOff
        | PolicyPhase::LastGood
        | PolicyPhase::StandIn
        | PolicyPhase::Compiling => Paint::Warning,
        PolicyPhase::Quarantined | PolicyPhase::Refused => Paint::Bad,
        PolicyPhase::Paused | PolicyPhase::Unspecified => Paint::Faint,
    };
    Cell::painted(words::policy_phase(policy.phase()), Some(paint))
}

/// The bound of the bucket that the slowest but one of a hundred calls is in.
pub(super) fn p99(buckets: &[PolicyLatencyBucket]) -> String {
    let calls: u64 = buckets.iter().map(|bucket| bucket.calls).sum();
    let wanted = calls.saturating_sub(calls / 100);
    let (mut below, mut longest) = (0, 0);
    for bucket in buckets {
        below += bucket.calls;
        if calls != 0 && below >= wanted {
            return match bucket.micros_max {
                0 => format!(">{}", micros(longest)),
                bound => format!("<={}", micros(bound)),
            };
        }
        longest = bucket.micros_max;
    }
    String::new()
}

fn micros(micros: u64) -> String {
    const MILLI: u64 = 1_000;
    if micros >= MILLI && micros.is_multiple_of(MILLI) {
        format!("{}ms", micros / MILLI)
    } else {
        format!("{micros}us")
    }
}

pub(super) fn kibibytes(bytes: u64) -> String {
    format!("{}Ki", bytes.div_ceil(1024))
}

/// Something that waits for whoever reads it, and what to type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) says: String,
    pub(super) commands: Vec<String>,
}

pub(super) fn notes(policy: &Policy) -> Vec<Note> {
    let name = &policy.name;
    let word = shell_word(name);
    let on = |command: &str, more: &str| format!("devicectl policy {command} {word}{more}");
    let by_digest =
        |aside: &PolicySetAside| format!(" --digest {}", shell_word(short(&aside.digest)));
    let mut notes = Vec::new();
    let mut note = |says: String, commands: Vec<String>| notes.push(Note { says, commands });
    let told = |aside: &PolicySetAside| version(&aside.version, &aside.digest);
    match policy.phase() {
        PolicyPhase::Paused => {
            // What policies.yaml or safe mode has paused, no command resumes; the detail says what does.
            let by_hand = policy.mode() != PolicyMode::Paused;
            let commands = by_hand.then(|| on("resume", ""));
            let commands = commands.into_iter().collect();
            note(format!("{name} is paused: {}", policy.detail), commands);
        }
        PolicyPhase::BackOff => {
            let commands = vec![on("describe", "")];
            note(
                format!("{name} is not asked for a while: {}", policy.detail),
                commands,
            );
        }
        // Nothing to do but to wait.
        PolicyPhase::Compiling => note(format!("{name}: {}", policy.detail), Vec::new()),
        PolicyPhase::Running
        | PolicyPhase::LastGood
        | PolicyPhase::StandIn
        | PolicyPhase::Quarantined
        | PolicyPhase::Refused
        | PolicyPhase::Unspecified => {}
    }
    if let Some(held) = &policy.held {
        let commands = vec![on("describe", ""), on("accept", &by_digest(held))];
        note(
            format!("{name}: {} is held: {}", told(held), held.why),
            commands,
        );
    }
    for aside in policy.quarantined.iter().take(QUARANTINED_MAX) {
        let says = format!("{name}: {} is quarantined: {}", told(aside), aside.why);
        note(says, vec![on("release", &by_digest(aside))]);
    }
    let more = policy.quarantined.len().saturating_sub(QUARANTINED_MAX);
    if more != 0 {
        let commands = vec![on("describe", "")];
        note(
            format!("{name}: {more} more versions are quarantined"),
            commands,
        );
    }
    // What is quarantined, a reload does not bring back.
    let is_new = |refused: &&PolicySetAside| {
        let mut known = policy.quarantined.iter();
        refused.digest.is_empty() || !known.any(|aside| aside.digest == refused.digest)
    };
    if let Some(refused) = policy.refused.as_ref().filter(is_new) {
        let says = format!(
            "{name}: {} of {} is refused: {}",
            told(refused),
            refused.origin,
            refused.why
        );
        note(says, vec!["devicectl policy reload".to_owned()]);
    }
    notes
}
