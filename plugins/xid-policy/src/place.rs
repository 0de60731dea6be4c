//! Where on a GPU a fault was, as far as the kernel's line tells.

use device_policy_sdk::attr;
use device_policy_sdk::types::Signal;

/// What must be the same for two faults to count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Same {
    /// The GPU, or its MIG instance.
    #[default]
    Gpu,
    /// `(GPC 7, TPC 7, SM 0)`, whichever SM.
    GpcTpc,
    /// `Link 17`.
    Link,
}

impl Same {
    pub(crate) const ALL: [Self; 3] = [Self::Gpu, Self::GpcTpc, Self::Link];
    /// In the order of [`Self::ALL`].
    pub(crate) const WORDS: [&'static str; 3] = ["gpu", "gpc-tpc", "link"];

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let at = Self::WORDS.iter().position(|known| *known == word)?;
        Self::ALL.get(at).copied()
    }

    /// `None`: the signal does not tell where it was, and counts for no place.
    pub(crate) fn place(self, signal: &Signal) -> Option<String> {
        match self {
            Self::Gpu => Some("this GPU".to_owned()),
            Self::GpcTpc => {
                let gpc = number_after(&signal.evidence, "GPC ")?;
                let tpc = number_after(&signal.evidence, "TPC ")?;
                Some(format!("GPC {gpc}, TPC {tpc}"))
            }
            Self::Link => {
                let link = attr::int(&signal.attrs, "link")
                    .or_else(|| number_after(&signal.evidence, "ink ").map(i64::from))?;
                Some(format!("link {link}"))
            }
        }
    }
}

/// The number right after the first `word` that one follows.
fn number_after(text: &str, word: &str) -> Option<u32> {
    text.match_indices(word).find_map(|(at, _)| {
        let rest = text.get(at + word.len()..)?;
        rest.split(|c: char| !c.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(same: Same, evidence: &str, place: Option<&str>) {
        let signal = Signal {
            evidence: evidence.to_owned(),
            ..device_policy_sdk::testing::signals().signal("xid")
        };
        assert_eq!(same.place(&signal).as_deref(), place, "{evidence}");
    }

    #[test]
    fn real_lines_tell_the_place() {
        check(
            Same::GpcTpc,
            "Graphics SM Warp Exception on (GPC 7, TPC 7, SM 0): Illegal Instruction Parameter",
            Some("GPC 7, TPC 7"),
        );
        check(
            Same::GpcTpc,
            "Graphics SM Warp Exception on (GPC 0, TPC 12): Out Of Range Address",
            Some("GPC 0, TPC 12"),
        );
        check(
            Same::GpcTpc,
            "Graphics Exception: ESR 0x57c730=0xc04000b 0x57c734=0x24",
            None,
        );
        check(Same::GpcTpc, "GPC , TPC 1", None);
        check(
            Same::Link,
            "NVLink: fatal error detected on link 14(0x0, 0x0)",
            Some("link 14"),
        );
        check(
            Same::Link,
            "RLW_RXPIPE Nonfatal XC0 i0 Link 03 (0x0409a0c2 0x8)",
            Some("link 3"),
        );
        check(
            Same::Link,
            "NETIR Fatal XC0 i0 Link -1 (0x000fe406 0x0)",
            None,
        );
        check(Same::Gpu, "", Some("this GPU"));
    }
}
