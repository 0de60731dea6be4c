//! One XID to one finding: the operator's words first, then the vendor's.

use std::borrow::Cow;

use device_policy_sdk::attr;
use device_policy_sdk::types::{Severity, Signal};

use crate::catalog::{self, Entry, Remedy};
use crate::config::Config;
use crate::finding::{Action, Finding, Reason, Until};
use crate::{nvlink, nvlink5, profile};

/// How the message names a code: `XID 31 (GPU memory page fault)`.
pub(crate) fn subject(code: u64) -> String {
    match catalog::lookup(code).map_or("", |entry| entry.name) {
        "" => format!("XID {code}"),
        name => format!("XID {code} ({name})"),
    }
}

/// What an XID comes to; `None`: the operator wants nothing said of it. XIDs 48 and 154 come here
/// only where [`is_plain`] says so.
pub(crate) fn judge(config: &Config, driver: &str, code: u64, signal: &Signal) -> Option<Finding> {
    if config.ignored.contains(&code) {
        return None;
    }
    let vendor = vendor(code, driver, signal);
    let base = profile::judge(config.profile, code, signal, &vendor).unwrap_or(vendor);
    if config.extra_fatal.contains(&code) {
        let action = if base.action == Action::None {
            Action::ContactSupport
        } else {
            base.action
        };
        return Some(configured(Severity::Fatal, action, &base));
    }
    Some(match config.overrides.get(&code) {
        Some(over) => {
            let severity = over.severity.unwrap_or(base.severity);
            let inherited = if severity == Severity::Info {
                Action::None
            } else {
                base.action
            };
            configured(severity, over.action.unwrap_or(inherited), &base)
        }
        None => base,
    })
}

/// Whether a profile or the operator has said what this code is, so that no workflow of its own applies.
pub(crate) fn is_plain(config: &Config, code: u64) -> bool {
    config.profile != profile::Profile::Vendor
        || config.ignored.contains(&code)
        || config.extra_fatal.contains(&code)
        || config.overrides.contains_key(&code)
}

/// Whether the vendor's word, and so what is told besides the code, decides how bad it is.
pub(crate) fn severity_is_open(config: &Config, code: u64) -> bool {
    let over = config.overrides.get(&code);
    config.profile == profile::Profile::Vendor
        && !config.ignored.contains(&code)
        && !config.extra_fatal.contains(&code)
        && over.is_none_or(|over| over.severity.is_none())
}

fn configured(severity: Severity, action: Action, base: &Finding) -> Finding {
    let note = format!(
        "judged by this node's configuration, not by the vendor's catalogue; action {}",
        action.word()
    );
    Finding {
        severity,
        action,
        reason: Reason::ConfiguredByOperator,
        until: Until::of(severity, action, base.until),
        note: note.into(),
    }
}

fn vendor(code: u64, driver: &str, signal: &Signal) -> Finding {
    let Some(entry) = catalog::lookup(code) else {
        let note = "a code that the vendor's catalogue does not know: contact support";
        return Finding::support(Reason::UnknownXid, note);
    };
    match entry.remedy {
        Remedy::RestartApp => application(code),
        Remedy::Ignore => ignored(code),
        Remedy::ResetGpu => Finding::reset_gpu(later(entry, "the GPU must be reset")),
        Remedy::RestartBm => restart(
            Action::RestartBm,
            Reason::NodeRebootRequired,
            later(entry, "the node must be rebooted"),
        ),
        Remedy::RestartVm => restart(
            Action::RestartVm,
            Reason::VmRestartRequired,
            later(
                entry,
                "the VM that owns the GPU must be restarted (on bare metal, the node)",
            ),
        ),
        Remedy::FollowRoot => follow_root(signal),
        Remedy::NvLink => nvlink::judge(&signal.evidence),
        Remedy::NvLink5 => nvlink5::judge(code, driver, signal),
        Remedy::DoubleBit => {
            Finding::reset_gpu("an uncorrectable memory error: the GPU must be reset")
        }
        Remedy::Recovery
        | Remedy::ContactSupport
        | Remedy::CheckMechanicals
        | Remedy::CheckUvm
        | Remedy::UpdateSoftware
        | Remedy::Unpublished => support(entry),
    }
}

fn application(code: u64) -> Finding {
    if code == 94 {
        let note = "the memory error was contained: the application that it hit must be restarted; the GPU stays healthy";
        return Finding::healthy(Reason::ContainedError, note);
    }
    let note =
        "an application's fault, not the GPU's: restart the application; the GPU stays healthy";
    Finding::healthy(Reason::ApplicationFault, note)
}

fn ignored(code: u64) -> Finding {
    if code == 63 {
        let note = "a memory row was marked for remapping, which the next GPU reset does; the GPU stays healthy";
        return Finding::healthy(Reason::RowRemapRecorded, note);
    }
    let note = "informational, the vendor advises no action; the GPU stays healthy";
    Finding::healthy(Reason::Informational, note)
}

fn follow_root(signal: &Signal) -> Finding {
    let told = attr::int(&signal.attrs, "caused-by").and_then(|code| u64::try_from(code).ok());
    let root = match (told.or_else(|| caused_by(&signal.evidence)), signal.root) {
        (Some(code), _) => format!("XID {code}"),
        (None, Some(incident)) => format!("incident {incident}"),
        (None, None) => "an earlier fault or a killed application".to_owned(),
    };
    let note = format!(
        "cleanup after {root}, which is the one to follow; on account of this the GPU stays healthy"
    );
    Finding::healthy(Reason::FollowsEarlierFault, note)
}

/// `… caused by previous Xid 149`.
fn caused_by(evidence: &str) -> Option<u64> {
    let (_, code) = evidence.rsplit_once("caused by previous Xid ")?;
    code.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn support(entry: &Entry) -> Finding {
    let (reason, note) = if entry.remedy == Remedy::CheckMechanicals {
        (
            Reason::CheckMechanicals,
            "check seating, cables and auxiliary power; else contact support",
        )
    } else if entry.remedy == Remedy::CheckUvm {
        (
            Reason::CheckUvm,
            "reset the GPU if unified memory or vGPU is in use; else contact support",
        )
    } else if entry.remedy == Remedy::UpdateSoftware {
        (
            Reason::UpdateSoftware,
            "update firmware and software to versions that go together; else contact support",
        )
    } else if entry.remedy == Remedy::Unpublished {
        (
            Reason::UnpublishedXid,
            "the vendor has published no action for it: contact support",
        )
    } else if entry.name == "Unused" {
        (
            Reason::UnusedXid,
            "a code that the vendor no longer uses: contact support",
        )
    } else {
        (
            Reason::ContactSupport,
            "the vendor advises to contact support",
        )
    };
    Finding::support(reason, note)
}

fn restart(action: Action, reason: Reason, note: Cow<'static, str>) -> Finding {
    Finding {
        severity: Severity::Fatal,
        action,
        reason,
        until: Until::Reboot,
        note,
    }
}

/// The remedy, and what the vendor says to do where it does not help.
fn later(entry: &Entry, remedy: &'static str) -> Cow<'static, str> {
    match entry.investigate {
        "CONTACT_SUPPORT" => format!("{remedy}; if it comes again, contact support").into(),
        _ => remedy.into(),
    }
}
