//! What an operator is advised to do, in one order of severity (design section 1).

use std::fmt;

/// A recommended action. The order of the variants is the order of severity: of several standing
/// problems the greatest action is the one recommended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    #[default]
    None,
    ComponentReset,
    RestartVm,
    RestartBm,
    RunDcgmEud,
    RunFieldDiag,
    ContactSupport,
    ReplaceVm,
}

impl Action {
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::ComponentReset,
        Self::RestartVm,
        Self::RestartBm,
        Self::RunDcgmEud,
        Self::RunFieldDiag,
        Self::ContactSupport,
        Self::ReplaceVm,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::ComponentReset => "COMPONENT_RESET",
            Self::RestartVm => "RESTART_VM",
            Self::RestartBm => "RESTART_BM",
            Self::RunDcgmEud => "RUN_DCGMEUD",
            Self::RunFieldDiag => "RUN_FIELDDIAG",
            Self::ContactSupport => "CONTACT_SUPPORT",
            Self::ReplaceVm => "REPLACE_VM",
        }
    }

    /// Reads our words and the vendor's (`RESET_GPU`, `RESTART_APP`, `IGNORE`, …). `None` where
    /// the word is unknown; the host then reads `CONTACT_SUPPORT` and counts it.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "RESET_GPU" => Self::ComponentReset,
            "" | "RESTART_APP" | "IGNORE" => Self::None,
            _ => return Self::ALL.into_iter().find(|action| action.as_str() == word),
        })
    }

    /// On bare metal there is no VM to restart: the machine is.
    pub fn on(self, platform: Platform) -> Self {
        match (self, platform) {
            (Self::RestartVm, Platform::BareMetal) => Self::RestartBm,
            (action, _) => action,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the daemon's node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    BareMetal,
    VirtualMachine,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip_and_the_vendors_are_understood() {
        for action in Action::ALL {
            assert_eq!(Action::from_word(action.as_str()), Some(action));
        }
        assert_eq!(Action::from_word("RESET_GPU"), Some(Action::ComponentReset));
        assert_eq!(Action::from_word("RESTART_APP"), Some(Action::None));
        assert_eq!(Action::from_word("MAKE_COFFEE"), None);
    }

    #[test]
    fn severity_follows_the_design_and_bare_metal_has_no_vm() {
        assert!(Action::ALL.is_sorted());
        assert_eq!(Action::RestartVm.on(Platform::BareMetal), Action::RestartBm);
        assert_eq!(
            Action::RestartVm.on(Platform::VirtualMachine),
            Action::RestartVm
        );
    }
}
