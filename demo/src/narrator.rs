//! What the terminal shows. A reader that goes away ends the narration, not the checks.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::atomic::{AtomicUsize, Ordering};

use device_api_proto::native::{self, Gpu, Health};
use device_api_tests::health_of;

static STEPS: AtomicUsize = AtomicUsize::new(0);

/// One line, as it is.
pub(crate) fn say(line: &str) {
    let _ = writeln!(stdout().lock(), "{line}");
}

fn paint(code: &str, text: &str) -> String {
    if stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Begins a step: a headline, and why it is worth seeing.
pub(crate) fn step(title: &str, why: &str) {
    let number = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    say("");
    say(&paint("1", &format!("{number}. {title}")));
    say(&format!("   {why}"));
}

pub(crate) fn did(what: &str) {
    say(&format!("   {} {what}", paint("33", "⚡")));
}

pub(crate) fn saw(what: &str) {
    say(&format!("   {} {what}", paint("32", "✔")));
}

pub(crate) fn quote(text: &str) {
    say(&format!("     │ {text}"));
}

/// What the live watcher tells.
pub(crate) fn watched(event: &native::WatchGpusResponse) {
    let Some(gpu) = &event.gpu else { return };
    let kind = match event.r#type() {
        native::EventType::Added => "ADDED",
        native::EventType::Modified => "MODIFIED",
        native::EventType::Deleted => "DELETED",
        native::EventType::Bookmark => "BOOKMARK",
        native::EventType::Unspecified => "?",
    };
    let line = format!(
        "      watch ▸ {kind} gpu {} {} {} (version {})",
        index(gpu),
        word(gpu),
        action(gpu),
        gpu.resource_version
    );
    say(&paint("2", &line));
}

pub(crate) fn table(gpus: &[Gpu]) {
    say(
        "     GPU  UUID                                      PRODUCT                 PCI           HEALTH     ACTION",
    );
    let mut gpus: Vec<_> = gpus.iter().collect();
    gpus.sort_by_key(|gpu| gpu.spec.as_ref().and_then(|spec| spec.index));
    for gpu in gpus {
        let spec = gpu.spec.clone().unwrap_or_default();
        say(&format!(
            "     {:>3}  {:<40}  {:<22}  {:<12}  {:<9}  {}",
            index(gpu),
            spec.uuid,
            spec.product,
            spec.pci_address,
            word(gpu),
            action(gpu)
        ));
    }
}

pub(crate) fn failed(failure: &anyhow::Error) {
    let _ = writeln!(std::io::stderr().lock(), "\n✘ demo failed: {failure:#}");
}

pub(crate) fn index(gpu: &Gpu) -> String {
    gpu.spec
        .as_ref()
        .and_then(|spec| spec.index)
        .map_or_else(|| "?".to_owned(), |index| index.to_string())
}

pub(crate) fn word(gpu: &Gpu) -> &'static str {
    match health_of(gpu) {
        Health::Healthy => "Healthy",
        Health::Degraded => "Degraded",
        Health::Unhealthy => "Unhealthy",
        Health::Unknown | Health::Unspecified => "Unknown",
    }
}

pub(crate) fn action(gpu: &Gpu) -> &str {
    gpu.status
        .as_ref()
        .map_or("", |status| &status.recommended_action)
}
