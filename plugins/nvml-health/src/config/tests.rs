use super::*;

#[test]
fn empty_text_means_the_defaults() {
    let config = Config::parse("").unwrap();
    assert_eq!((config.hysteresis_c, config.throttle_quiet_s), (3, 10));
    assert_eq!(
        (config.temperature_max_c, config.power_limit_min_w),
        (None, None)
    );
    assert!(OPTIONAL.iter().all(|condition| config.judges(condition)));
    let rated: Vec<_> = config
        .rates
        .iter()
        .map(|(key, rate)| (*key, rate.count))
        .collect();
    assert_eq!(
        rated,
        [
            ("nvlink.crc-data-errors", 6000),
            ("nvlink.crc-flit-errors", 6000),
            ("pcie.replays", 9)
        ]
    );
    let config = Config::parse(r#"{"disabled":["ClockThrottle"]}"#).unwrap();
    assert!(!config.judges(throttle::CONDITION) && config.judges(ecc::CONDITION));
}

#[test]
fn a_rate_is_added_changed_and_turned_off() {
    let config = r#"{"rates": {"ecc.volatile.corrected": {"count": 100, "within_s": 3600, "severity": "info"},
        "pcie.replays": {"count": 0}, "nvlink.crc-flit-errors": {"count": 5, "action": "NONE", "quiet_s": 7}}}"#;
    let rates = Config::parse(config).unwrap().rates;
    assert!(!rates.contains_key("pcie.replays"));
    let corrected = &rates["ecc.volatile.corrected"];
    assert_eq!(
        (corrected.count, corrected.within_s, corrected.severity),
        (100, 3600, Severity::Info)
    );
    let flit = &rates["nvlink.crc-flit-errors"];
    assert_eq!(
        (flit.count, flit.action, flit.quiet_s, flit.within_s),
        (5, "NONE", 7, 60)
    );
}

#[test]
fn errors_name_the_key_and_what_to_do() {
    for (text, part) in [
        (
            r#"{"hysteresis":3}"#,
            "hysteresis: unknown key; remove it or correct its spelling; the keys here are disabled, hysteresis_c",
        ),
        (
            r#"{"throttle_quiet_ms":3}"#,
            "the end of a name is its unit: _s seconds",
        ),
        (
            r#"{"hysteresis_c":-3}"#,
            "hysteresis_c: expected a whole number from 0 to 30, found -3",
        ),
        (
            r#"{"throttle_quiet_s":0}"#,
            "throttle_quiet_s: expected a whole number from 1 to 3600",
        ),
        (
            r#"{"throttle_quiet_s":"10s"}"#,
            "throttle_quiet_s: expected a whole number from 1 to 3600, found \"10s\"",
        ),
        (
            r#"{"temperature_max_c":200}"#,
            "temperature_max_c: expected a whole number from 30 to 150, found 200",
        ),
        (
            r#"{"disabled":["GpuLost"]}"#,
            "disabled: expected a list of Temperature",
        ),
        (
            r#"{"rates":{"ecc.colour":{"count":1}}}"#,
            "rates.ecc.colour: expected one of ecc.volatile.corrected",
        ),
        (
            r#"{"rates":{"pcie.replays":{}}}"#,
            "rates.pcie.replays.count: missing; give a whole number from 0 to 1000000000",
        ),
        (
            r#"{"rates":{"pcie.replays":{"count":1,"per_s":1}}}"#,
            "rates.pcie.replays.per_s: unknown key; remove it or correct its spelling; the keys here are count",
        ),
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
