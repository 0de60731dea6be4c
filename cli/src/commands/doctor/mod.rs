//! `devicectl doctor`: looks for the usual misconfigurations, and says what to do about each.
//!
//! **Invariant:** no check changes anything: it reads files, connects to the socket, and makes calls that read.

mod ask;
mod check;
mod daemon;
mod driver;
mod judged;
mod place;
mod socket;
mod store;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use self::ask::Answers;
use self::check::{Check, State};
use self::place::Place;
use crate::args::{Args, DoctorArgs, Format};
use crate::failure::Failure;
use crate::output::Output;
use crate::table::{Cell, Paint};
use crate::text::escape;

/// Of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Of this devicectl.
    version: &'static str,
    socket: String,
    failed: usize,
    warnings: usize,
    checks: Vec<Check>,
}

/// All but those of the socket, which never go unanswered: where the daemon says nothing, they are skipped.
const OF_THE_DAEMON: [&str; 29] = [
    "api.answers",
    "api.version",
    "api.access",
    "api.calls",
    "daemon.ready",
    "daemon.parts",
    "daemon.log-level",
    "daemon.boot-id",
    "daemon.clock",
    "tls.certificate",
    "nvml.library",
    "nvml.version",
    "nvml.calls",
    "nvml.gpus",
    "driver.module",
    "cluster.runtime-class",
    "kernel-log.access",
    "store.durable",
    "store.directory",
    "policies.safe-mode",
    "policies.set",
    "policies.saved",
    "policies.running",
    "policies.refused",
    "policies.held",
    "policies.quarantined",
    "policies.ready",
    "gpus.known",
    "providers.lost",
];

/// Why most are skipped where the daemon does not answer.
const NOT_SAID: &str = "the daemon did not say";

/// # Errors
/// [`Failure::Unwell`] where a check failed; the report is printed then, too.
pub(super) async fn run<W: Write>(
    args: &Args,
    asked: &DoctorArgs,
    out: &mut Output<W>,
) -> Result<(), Failure> {
    let place = Place::here();
    let answers = ask::ask(&args.socket).await;
    let status = answers
        .as_ref()
        .ok()
        .and_then(|answers| answers.daemon.as_ref().ok());
    let mut checks = Vec::new();
    if status.is_none() {
        unaided(&mut checks, &place, asked).await;
    }
    let is_ready = checks.iter().any(daemon::says_ready);
    let socket = socket::Asked {
        path: &args.socket,
        daemon: status.map(|status| status.uid),
        refused: answers.as_ref().err(),
        ready: is_ready.then_some(asked.health_address),
    };
    let mut checks = [socket.check(&place), checks].concat();
    match &answers {
        Ok(answers) => of_daemon(&mut checks, &place, answers, asked),
        Err(_) => checks.extend(driver::check_here(&place, &asked.driver_root)),
    }
    rest(&mut checks);
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        socket: args.socket.display().to_string(),
        failed: count(State::Fail),
        warnings: count(State::Warn),
        checks,
    };
    match args.output {
        Format::Json => out.json(&report)?,
        Format::Yaml => out.yaml(&report, false)?,
        Format::Table | Format::Wide => out.print(|to, colour| print(to, &report, colour))?,
    }
    match report.failed {
        0 => Ok(()),
        failed => Err(Failure::Unwell { failed }),
    }
}

/// What can be seen without the daemon's word.
async fn unaided(checks: &mut Vec<Check>, place: &Place, asked: &DoctorArgs) {
    let readyz = ask::readyz(asked.health_address).await;
    checks.push(daemon::readyz(readyz, asked.health_address));
    checks.push(store::directory(place, &asked.state_dir, None));
}

fn of_daemon(checks: &mut Vec<Check>, place: &Place, answers: &Answers, asked: &DoctorArgs) {
    let status = answers.daemon.as_ref().ok();
    let uid = status.map(|status| status.uid);
    let gpus = answers.gpus.as_ref().ok().map(|listed| &*listed.gpus);
    checks.extend(daemon::answers(&answers.daemon));
    if !answers.hangs() {
        checks.push(daemon::calls(&answers.failed()));
    }
    if let Some(status) = status {
        checks.extend([
            daemon::ready(status),
            daemon::parts(status),
            daemon::log(status),
            daemon::boot(place, status),
            daemon::clock(place, status, gpus),
            daemon::certificate(place, status),
        ]);
    }
    match &answers.nvml {
        Ok(nvml) => checks.extend(driver::check(place, nvml)),
        Err(_) => checks.extend(driver::check_here(place, &asked.driver_root)),
    }
    if let Some(status) = status {
        checks.push(driver::kernel_log(place, status));
        checks.push(store::durable(status));
        if !status.state_dir.is_empty() {
            checks.push(store::directory(place, Path::new(&status.state_dir), uid));
        }
    }
    if let Ok(listed) = &answers.policies {
        checks.extend(judged::policies(listed, status));
    }
    if let Some(gpus) = gpus {
        checks.extend(judged::gpus(gpus, checks));
    }
    if let Ok(providers) = &answers.providers {
        checks.push(judged::providers(providers, gpus));
    }
}

/// What could not be looked at is said to be so: a check that is not there would be taken for one that is well.
fn rest(checks: &mut Vec<Check>) {
    let missing = |id: &&str| !checks.iter().any(|check| check.id == *id);
    let missing: Vec<_> = OF_THE_DAEMON.into_iter().filter(missing).collect();
    let skipped = |id| Check::skipped(id, NOT_SAID);
    checks.extend(missing.into_iter().map(skipped));
}

fn paint(state: State) -> Paint {
    match state {
        State::Ok => Paint::Good,
        State::Warn => Paint::Warning,
        State::Fail => Paint::Bad,
        State::Skipped => Paint::Faint,
    }
}

fn print(to: &mut dyn Write, report: &Report, colour: bool) -> io::Result<()> {
    let width = report.checks.iter().map(|check| check.id.len()).max();
    let width = width.unwrap_or(0);
    let is_not_said = |check: &&Check| check.why == NOT_SAID;
    for check in report.checks.iter().filter(|check| !is_not_said(check)) {
        let word = Cell::painted(check.state.word(), Some(paint(check.state)));
        let pad = "skipped".len().saturating_sub(word.text.len());
        writeln!(
            to,
            "{}{:pad$}  {:<width$}  {}",
            word.show(colour),
            "",
            check.id,
            escape(&check.why)
        )?;
        if !check.fix.is_empty() {
            writeln!(to, "{:9}{:width$}  do: {}", "", "", escape(&check.fix))?;
        }
    }
    // A page of the same would hide what is to be done.
    let not_said = report.checks.iter().filter(is_not_said).count();
    if not_said > 0 {
        let word = Cell::painted(State::Skipped.word(), Some(paint(State::Skipped)));
        let word = word.show(colour);
        writeln!(to, "{word}  {not_said} more, as {NOT_SAID}")?;
    }
    let count = |state| {
        report
            .checks
            .iter()
            .filter(|one| one.state == state)
            .count()
    };
    writeln!(
        to,
        "\n{} failed, {} warnings, {} ok, {} skipped",
        report.failed,
        report.warnings,
        count(State::Ok),
        count(State::Skipped)
    )
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
