//! The vendor's XID catalogue as the host needs it: the class of a code, for the floor and the
//! fallback of design H8. What a code *means* on this site is the policies' business.

use crate::action::Action;
use crate::verdict::Severity;

/// One row of `data/xid-catalog.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub code: u64,
    pub mnemonic: &'static str,
    pub name: &'static str,
    /// The vendor's immediate action, in the vendor's words; empty where none is published.
    pub immediate: &'static str,
    /// The vendor's drivers ask for a recovery action on its account: it comes with an XID 154.
    pub asks: bool,
}

static CATALOG: &[Entry] = &include!(concat!(env!("OUT_DIR"), "/xid_catalog.rs"));

/// All codes, ascending.
pub fn catalog() -> &'static [Entry] {
    CATALOG
}

/// The catalogue's row of that code.
pub fn lookup(code: u64) -> Option<&'static Entry> {
    let at = CATALOG
        .binary_search_by_key(&code, |entry| entry.code)
        .ok()?;
    CATALOG.get(at)
}

/// What the vendor's default profile makes of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    pub severity: Severity,
    pub action: Action,
}

impl Class {
    pub const APPLICATION: Self = Self {
        severity: Severity::Info,
        action: Action::None,
    };
    pub const SUPPORT: Self = Self {
        severity: Severity::Warning,
        action: Action::ContactSupport,
    };

    pub const fn fatal(action: Action) -> Self {
        Self {
            severity: Severity::Fatal,
            action,
        }
    }
}

/// The vendor's class of a code (design N6): an application's fault or one to ignore never makes a
/// GPU unhealthy, a reset or restart does; codes without a plain action, unused and unknown ones
/// are Degraded with CONTACT_SUPPORT, never fatal.
pub fn vendor_class(code: u64) -> Class {
    match lookup(code).map_or("", |entry| entry.immediate) {
        "RESTART_APP" | "IGNORE" => Class::APPLICATION,
        "RESET_GPU" => Class::fatal(Action::ComponentReset),
        "RESTART_BM" => Class::fatal(Action::RestartBm),
        "RESTART_VM" => Class::fatal(Action::RestartVm),
        // Follows another XID, which has its own class.
        "WORKFLOW_XID_45" => Class::APPLICATION,
        // Alone it asks for a reset; the floor waits for 63 and 94, a fallback has no time to.
        "WORKFLOW_XID_48" => Class::fatal(Action::ComponentReset),
        _ => Class::SUPPORT,
    }
}

/// The driver's recovery action: NVML field 230, and the number in XID 154's text. An open set.
pub fn recovery_class(value: u64) -> Class {
    match value {
        0 => Class::APPLICATION,
        1 => Class::fatal(Action::ComponentReset),
        2 => Class::fatal(Action::RestartBm),
        // Drain P2P; drain and reset: running work may finish, no new work.
        3 => Class {
            severity: Severity::Warning,
            action: Action::None,
        },
        4 => Class {
            severity: Severity::Warning,
            action: Action::ComponentReset,
        },
        _ => Class::SUPPORT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n6_the_vendors_words_decide_for_every_code_of_the_catalogue() {
        assert!(catalog().is_sorted_by_key(|entry| entry.code));
        assert!(catalog().len() >= 177, "{} rows", catalog().len());
        for entry in catalog() {
            let class = vendor_class(entry.code);
            match entry.immediate {
                "RESTART_APP" | "IGNORE" => assert_eq!(class, Class::APPLICATION, "{entry:?}"),
                "RESET_GPU" | "RESTART_BM" | "RESTART_VM" => {
                    assert_eq!(class.severity, Severity::Fatal, "{entry:?}");
                    assert_eq!(
                        Some(class.action),
                        Action::from_word(entry.immediate),
                        "{entry:?}"
                    );
                }
                _ => {}
            }
        }
    }

    #[test]
    fn n6_what_nobody_knows_is_never_fatal() {
        for code in [0, 1, 162, 172, 186, 9999, u64::MAX] {
            assert_eq!(vendor_class(code), Class::SUPPORT, "{code}");
        }
        assert_eq!(vendor_class(79), Class::fatal(Action::RestartBm));
        assert_eq!(vendor_class(31), Class::APPLICATION);
        assert_eq!(vendor_class(13), Class::APPLICATION);
    }
}
