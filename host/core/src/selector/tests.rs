use std::sync::Arc;

use super::*;
use crate::clock::WallTime;
use crate::device::DeviceInfo;
use crate::health::{Derived, Health};
use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion};

fn gpu() -> Gpu {
    let uuid = DeviceUuid::new("GPU-0");
    let mut info = DeviceInfo::bare(uuid.clone());
    info.product = "NVIDIA H100 80GB HBM3".to_owned();
    info.pci = "0000:1b:00.0".parse().ok();
    info.labels = [("zone", "a"), ("site.example/tier", "gold")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    Gpu {
        key: ObjectKey::new("", "gpu-0"),
        uid: "uid".into(),
        generation: 1,
        created: WallTime::default(),
        version: ResourceVersion(1),
        uuid,
        device: Arc::new(info),
        conditions: [].into(),
        derived: Derived {
            health: Health::Degraded,
            ..Derived::default()
        },
        ready_since: WallTime::default(),
        encoded: Default::default(),
    }
}

#[test]
fn w3_labels_are_selected_as_in_kubernetes() {
    #[track_caller]
    fn check(selector: &str, expected: bool) {
        let selection = Selection {
            labels: labels(selector).expect("well-formed"),
            ..Selection::all()
        };
        assert_eq!(selection.holds(&gpu()), expected, "{selector}");
    }
    check("", true);
    check("zone=a", true);
    check("zone==a", true);
    check("zone=b", false);
    check("zone!=a", false);
    check("zone!=b", true);
    check("rack!=b", true);
    check("zone in (b, a)", true);
    check("zone in (b)", false);
    check("zone notin (b,c)", true);
    check("rack notin (b)", true);
    check("zone", true);
    check("rack", false);
    check("!rack", true);
    check("!zone", false);
    check("zone=a,site.example/tier in (gold,silver),!rack", true);
    check("zone=a, site.example/tier=silver", false);
}

#[test]
fn w3_fields_are_selected_by_their_path() {
    #[track_caller]
    fn check(selector: &str, expected: bool) {
        let selection = Selection {
            fields: fields(selector).expect("well-formed"),
            ..Selection::all()
        };
        assert_eq!(selection.holds(&gpu()), expected, "{selector}");
    }
    check("status.health=Degraded", true);
    check("status.health!=Healthy,name=gpu-0", true);
    check("status.health==Unhealthy", false);
    check("spec.product=NVIDIA H100 80GB HBM3", true);
    check("spec.pci_address=0000:1b:00.0", true);
    check("status.recommended_action=NONE", true);
    check("namespace!=default", false);
    check("spec.uuid=GPU-1", false);
    check("spec.architecture=", true);
}

#[test]
fn what_is_no_selector_is_refused_by_name() {
    #[track_caller]
    fn check(read: Result<(), BadSelector>, expected: &str) {
        let why = read.expect_err("refused").0;
        assert!(why.contains(expected), "{why}");
    }
    let label = |text: &str| labels(text).map(drop);
    let field = |text: &str| fields(text).map(drop);
    check(label("zone in a"), "no label key");
    check(label("zone in (a"), "does not end in ')'");
    check(label("zone like (a)"), "write `key in (a, b)`");
    check(label("zone=a b"), "no label value");
    check(label(","), "no label key");
    check(label(&"a,".repeat(40)), "at most 32");
    check(label(&format!("a in ({})", "b,".repeat(70))), "at most 64");
    check(label(&"a".repeat(5000)), "5000 bytes");
    check(field("status.health"), "write `field=value`");
    check(field("status.mood=good"), "status.health");
}
