//! What the native dialect takes, and how it refuses the rest.

use device_api_core::error::ApiError;

use super::*;

fn wire(change: impl FnOnce(&mut proto::Condition)) -> proto::Condition {
    let mut condition = proto::Condition {
        r#type: "FanBroken".to_owned(),
        status: proto::ConditionStatus::True.into(),
        ..Default::default()
    };
    change(&mut condition);
    condition
}

#[test]
fn conditions_are_checked_field_by_field() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut proto::Condition), expected: &str) {
        let error = condition("status.conditions[2]", wire(change))
            .expect_err("refused")
            .to_string();
        assert!(
            error.starts_with(&format!("status.conditions[2].{expected}")),
            "{error}"
        );
    }
    check(|c| c.r#type.clear(), "type: required");
    check(
        |c| c.r#type = "Fan Broken".to_owned(),
        "type: not a condition type",
    );
    check(
        |c| c.r#type = "F".repeat(254),
        "type: 254 bytes; at most 253",
    );
    check(|c| c.status = 0, "status: required");
    check(|c| c.status = 9, "status: 9 is not");
    check(|c| c.polarity = 9, "polarity: 9 is not");
    check(|c| c.severity = -1, "severity: -1 is not");
    check(
        |c| c.reason = "R".repeat(129),
        "reason: 129 bytes; at most 128",
    );
    check(
        |c| c.recommended_action = "MAKE_COFFEE".to_owned(),
        "recommended_action: not an action; one of NONE,",
    );
}

#[test]
fn what_is_left_out_has_a_stated_meaning() {
    let read = condition("c", wire(|c| c.message = "m".repeat(5_000))).expect("read");
    let expected = ProviderCondition {
        type_: "FanBroken".to_owned(),
        status: Status::True,
        polarity: None,
        severity: Severity::Fatal,
        reason: String::new(),
        message: "m".repeat(4_096),
        action: Action::None,
        transition: None,
    };
    assert_eq!(read, expected);
}

#[test]
fn an_update_says_each_type_once_and_not_too_many() {
    let Err(Refusal::Field(twice)) = conditions(
        &Bounds::default(),
        "conditions",
        vec![wire(|_| ()), wire(|_| ())],
    ) else {
        panic!("refused as a field");
    };
    assert_eq!(
        twice.to_string(),
        "conditions[1].type: appears twice; say each type once"
    );
    let many = (0..=Bounds::default().conditions_per_gpu)
        .map(|n| wire(|c| c.r#type = format!("T{n}")))
        .collect();
    assert!(matches!(
        conditions(&Bounds::default(), "conditions", many),
        Err(Refusal::Api(ApiError::Exhausted { .. }))
    ));
}

#[test]
fn versions_below_zero_are_refused() {
    assert_eq!(version("v", 0), Ok(None));
    assert_eq!(version("v", 7), Ok(Some(ResourceVersion(7))));
    assert!(version("v", -1).is_err());
}

#[test]
fn leases_have_bounds() {
    #[track_caller]
    fn check(seconds: i64, expected: Option<u64>) {
        let read = lease_duration(
            "lease_duration",
            prost_types::Duration { seconds, nanos: 0 },
        );
        assert_eq!(read.ok().map(|lease| lease.as_secs()), expected);
    }
    check(0, None);
    check(1, Some(1));
    check(86_400, Some(86_400));
    check(86_401, None);
    check(-5, None);
    check(i64::MIN, None);
    check(i64::MAX, None);
}

#[test]
fn a_spec_is_checked_field_by_field() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut proto::GpuSpec), expected: &str) {
        let mut spec = proto::GpuSpec {
            uuid: "GPU-1".to_owned(),
            ..Default::default()
        };
        change(&mut spec);
        let read = device("gpu.spec", Some(spec)).map(|device| device.uuid.to_string());
        let said = read
            .map_err(|error| error.to_string())
            .unwrap_or_else(|error| error);
        assert!(said.starts_with(expected), "{said}");
    }
    check(|_| (), "GPU-1");
    check(|spec| spec.uuid.clear(), "gpu.spec.uuid: required");
    check(
        |spec| spec.uuid = "GPU 1".to_owned(),
        "gpu.spec.uuid: not a device UUID",
    );
    check(
        |spec| spec.pci_address = "nowhere".to_owned(),
        "gpu.spec.pci_address: \"nowhere\" is not a PCI address",
    );
    check(
        |spec| spec.mig_parent = "GPU-0".to_owned(),
        "gpu.spec.mig_parent: MIG instances",
    );
    check(
        |spec| spec.serial = "s".repeat(300),
        "gpu.spec.serial: 300 bytes",
    );
    let label = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
    check(
        |spec| spec.labels = label("rack", &"v".repeat(64)),
        "gpu.spec.labels[\"rack\"]: 64 bytes; at most 63",
    );
    check(
        |spec| spec.labels = label("", "v"),
        "gpu.spec.labels: \"\" is no label key",
    );
    check(
        |spec| spec.labels = label("a b", "v"),
        "gpu.spec.labels: \"a b\" is no label key",
    );
    check(
        |spec| spec.labels = label("site.example/rack", "a/b"),
        "gpu.spec.labels[\"site.example/rack\"]: not a label value",
    );
    check(
        |spec| {
            spec.labels = (0..=LABELS_MAX)
                .map(|n| (n.to_string(), String::new()))
                .collect();
        },
        "gpu.spec.labels: 65 labels; at most 64",
    );
    assert_eq!(device("spec", None), Err(FieldError::required("spec")));
}
