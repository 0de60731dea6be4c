//! What another system would make of an XID, for sites that want this node to judge as that one does:
//! tables read from its source (data/xid-profiles), not its code.
//!
//! A profile speaks of XIDs alone. SXids, the driver's recovery action and the host's floor stay as they are.

use device_policy_sdk::attr;
use device_policy_sdk::types::{Severity, Signal};

use crate::finding::{Action, Finding, Reason, Until};

/// Whose judgement a node follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The catalogue of whoever made the GPU.
    #[default]
    Vendor,
    DevicePlugin,
    Gke,
    Eks,
    Gpud,
}

impl Profile {
    pub(crate) const ALL: [Self; 5] = [
        Self::Vendor,
        Self::DevicePlugin,
        Self::Gke,
        Self::Eks,
        Self::Gpud,
    ];
    /// In the order of [`Self::ALL`].
    pub(crate) const WORDS: [&'static str; 5] = ["vendor", "device-plugin", "gke", "eks", "gpud"];

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let at = Self::WORDS.iter().position(|known| *known == word)?;
        Self::ALL.get(at).copied()
    }

    fn table(self) -> Option<&'static Table> {
        match self {
            Self::Vendor => None,
            Self::DevicePlugin => Some(&DEVICE_PLUGIN),
            Self::Gke => Some(&GKE),
            Self::Eks => Some(&EKS),
            Self::Gpud => Some(&GPUD),
        }
    }
}

/// What a system does with one code.
#[derive(Clone, Copy, Debug)]
struct Answer {
    severity: Severity,
    /// `None`: it says none.
    action: Option<Action>,
    word: &'static str,
}

/// One file of data/xid-profiles.
#[derive(Clone, Copy, Debug)]
struct Table {
    system: &'static str,
    version: &'static str,
    /// Every code without a row.
    other: Answer,
    /// Ascending by code and whether the line itself must say Fatal (build.rs sees to it).
    rows: &'static [((u64, bool), Answer)],
}

include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

impl Table {
    fn answer(&self, code: u64, is_fatal_line: bool) -> &Answer {
        let row = |key: (u64, bool)| {
            let at = self.rows.binary_search_by_key(&key, |row| row.0).ok()?;
            self.rows.get(at).map(|row| &row.1)
        };
        let telling = is_fatal_line.then(|| row((code, true))).flatten();
        telling
            .or_else(|| row((code, false)))
            .unwrap_or(&self.other)
    }
}

/// `None`: the vendor's own profile. Where that system advises nothing, the vendor's action is told, else
/// to contact support: a problem without a way on helps nobody.
pub(crate) fn judge(
    profile: Profile,
    code: u64,
    signal: &Signal,
    vendor: &Finding,
) -> Option<Finding> {
    let table = profile.table()?;
    let answer = table.answer(code, says_fatal(signal));
    let severity = answer.severity;
    let action = match (severity, answer.action) {
        (Severity::Info, _) => Action::None,
        (_, Some(action)) => action,
        (_, None) if vendor.action == Action::None => Action::ContactSupport,
        (_, None) => vendor.action,
    };
    let Table {
        system, version, ..
    } = table;
    let stays = match severity {
        Severity::Info => "; the GPU stays healthy",
        Severity::Warning | Severity::Fatal => "",
    };
    let note = format!(
        "judged as {system} ({version}) does: {}{stays}",
        answer.word
    );
    Some(Finding {
        severity,
        action,
        reason: Reason::JudgedByProfile,
        until: Until::of(severity, action, vendor.until),
        note: note.into(),
    })
}

/// `NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (…)`
fn says_fatal(signal: &Signal) -> bool {
    attr::text(&signal.attrs, "severity").map_or_else(
        || {
            signal
                .evidence
                .split_whitespace()
                .any(|word| word == "Fatal")
        },
        |word| word == "fatal",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::XidPolicy;
    use device_policy_sdk::testing::Bench;
    use device_policy_sdk::types::Verdict;

    fn judged(profile: &str, code: u64, evidence: &str) -> Verdict {
        let mut bench: Bench<XidPolicy> = Bench::new(&format!(r#"{{"profile":"{profile}"}}"#));
        let signal = bench.xid(code, evidence);
        let decision = bench.evaluate(&[signal]).unwrap();
        assert_eq!(decision.verdicts.len(), 1, "{:?}", decision.verdicts);
        decision.verdicts.into_iter().next().unwrap()
    }

    #[track_caller]
    fn check(profile: &str, code: u64, evidence: &str, severity: Severity, action: &str) {
        let verdict = judged(profile, code, evidence);
        assert_eq!(
            (verdict.severity, verdict.action.as_str(), &*verdict.reason),
            (severity, action, "JudgedByProfile"),
            "{profile} {code}: {}",
            verdict.message
        );
    }

    #[test]
    fn n6_a_profile_says_what_that_system_does() {
        use Severity::{Fatal, Info, Warning};
        check("device-plugin", 31, "", Info, "NONE");
        check("device-plugin", 94, "", Fatal, "CONTACT_SUPPORT");
        check("device-plugin", 79, "", Fatal, "RESTART_BM");
        check("device-plugin", 9999, "", Fatal, "CONTACT_SUPPORT");
        check("gke", 48, "", Fatal, "COMPONENT_RESET");
        check("gke", 79, "", Warning, "RESTART_BM");
        check("gke", 31, "", Info, "NONE");
        check("eks", 63, "", Fatal, "REPLACE_VM");
        check("eks", 9999, "", Info, "NONE");
        check("gpud", 94, "", Fatal, "RESTART_BM");
        check("gpud", 13, "", Info, "NONE");
        check("gpud", 154, "", Info, "NONE");
    }

    #[test]
    fn n6_gpud_takes_the_lines_own_word() {
        let line =
            |word| format!("NETIR_LINK_EVT  {word}   XC0 i0 Link 01 (0x021425c6 0x00000000)");
        check("gpud", 149, &line("Fatal"), Severity::Fatal, "RESTART_BM");
        check("gpud", 149, &line("Nonfatal"), Severity::Info, "NONE");
        check("gpud", 149, "", Severity::Info, "NONE");
        check("eks", 149, &line("Fatal"), Severity::Info, "NONE");
    }

    #[test]
    fn the_message_says_whose_word_it_is() {
        let verdict = judged("eks", 63, "");
        for part in ["the EKS node monitoring agent (v1.7.0", "NvidiaXID63Error"] {
            assert!(verdict.message.contains(part), "{}", verdict.message);
        }
    }
}
