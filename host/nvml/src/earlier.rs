//! GPUs that an earlier run of the daemon saw and that this one's inventory does not have (design N7): boards are
//! swapped with the power off, and fall off the bus while nobody looks.
//!
//! A GPU is told from another by its UUID, and its slot by the PCI address that it had. A reboot may give addresses
//! out anew: where one GPU is missing, those behind it may move up, each into the next one's. So another GPU at the
//! address means a replacement only where that one is new, or came from where, at the end, a new one is.

use device_api_core::durable::SeenBefore;
use device_api_core::ids::{DeviceUuid, PciAddress};

/// A GPU that is there no more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) seen: SeenBefore,
    pub(crate) fate: Fate,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Replaced {
        by: DeviceUuid,
    },
    /// Its slot is empty, or another has its address.
    Lost {
        slot_is_empty: bool,
    },
}

/// Those of an earlier run that are not among those that are here, each with its address.
pub(crate) fn missing(
    earlier: &[SeenBefore],
    here: &[(DeviceUuid, Option<PciAddress>)],
) -> Vec<Missing> {
    let is_here = |seen: &SeenBefore| here.iter().any(|(uuid, _)| *uuid == seen.info.uuid);
    let missing = earlier.iter().filter(|seen| !is_here(seen));
    let missing = missing.map(|seen| Missing {
        seen: seen.clone(),
        fate: fate(seen.slot, earlier, here),
    });
    missing.collect()
}

fn fate(
    slot: PciAddress,
    earlier: &[SeenBefore],
    here: &[(DeviceUuid, Option<PciAddress>)],
) -> Fate {
    let holder = |slot| here.iter().find(|(_, pci)| *pci == Some(slot));
    let Some((by, _)) = holder(slot) else {
        return Fate::Lost {
            slot_is_empty: true,
        };
    };
    let lost = Fate::Lost {
        slot_is_empty: false,
    };
    let mut slot = slot;
    // Each step leads to where another one was; more than there are would go in a circle.
    for _ in 0..=earlier.len() {
        let Some((uuid, _)) = holder(slot) else {
            return lost;
        };
        match earlier.iter().find(|seen| seen.info.uuid == *uuid) {
            None => return Fate::Replaced { by: by.clone() },
            Some(moved) => slot = moved.slot,
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use device_api_core::device::DeviceInfo;

    use super::*;

    fn slot(number: u8) -> PciAddress {
        format!("0000:{number:02x}:00.0").parse().unwrap()
    }

    /// Each is a name and a slot; the last says what is expected of the GPU `gone`.
    #[track_caller]
    fn check(earlier: &[(&str, u8)], here: &[(&str, u8)], gone: &str, expected: &Fate) {
        let seen = |(uuid, number): &(&str, u8)| SeenBefore {
            info: Arc::new(DeviceInfo::bare(DeviceUuid::new(uuid))),
            slot: slot(*number),
        };
        let earlier: Vec<_> = earlier.iter().map(seen).collect();
        let shown = |(uuid, number): &(&str, u8)| (DeviceUuid::new(uuid), Some(slot(*number)));
        let here: Vec<_> = here.iter().map(shown).collect();
        let missing = missing(&earlier, &here);
        let told: Vec<_> = missing
            .iter()
            .map(|missing| (missing.seen.info.uuid.as_str(), &missing.fate))
            .collect();
        assert_eq!(told, [(gone, expected)]);
    }

    #[test]
    fn n7_a_new_gpu_in_the_slot_is_a_replacement_and_an_empty_slot_a_loss() {
        let by = |uuid: &str| Fate::Replaced {
            by: DeviceUuid::new(uuid),
        };
        let lost = |slot_is_empty| Fate::Lost { slot_is_empty };
        check(&[("A", 1), ("B", 2)], &[("C", 1), ("B", 2)], "A", &by("C"));
        check(&[("A", 1), ("B", 2)], &[("B", 2)], "A", &lost(true));
        // The others have moved up, and there is one less.
        let three = [("A", 1), ("B", 2), ("C", 3)];
        check(&three, &[("B", 1), ("C", 2)], "A", &lost(false));
        // B was put into A's slot, and D into its own.
        let swapped = [("B", 1), ("D", 2), ("C", 3)];
        check(&three, &swapped, "A", &by("B"));
        // Two were at one address, at different times.
        check(&[("A", 1), ("B", 1)], &[("B", 1)], "A", &lost(false));
        // The others have changed places.
        check(&three, &[("C", 2), ("B", 3)], "A", &lost(true));
        let round = [("A", 1), ("B", 2), ("C", 1)];
        check(&round, &[("C", 2), ("B", 1)], "A", &lost(false));
    }

    #[test]
    fn a_gpu_whose_address_is_not_told_is_in_no_slot() {
        let earlier = [SeenBefore {
            info: Arc::new(DeviceInfo::bare(DeviceUuid::new("A"))),
            slot: slot(1),
        }];
        assert!(missing(&earlier, &[(DeviceUuid::new("A"), None)]).is_empty());
        let told = missing(&earlier, &[(DeviceUuid::new("B"), None)]);
        let lost = Fate::Lost {
            slot_is_empty: true,
        };
        assert_eq!(told.first().map(|missing| &missing.fate), Some(&lost));
    }
}
