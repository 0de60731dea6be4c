use super::*;

#[test]
fn empty_text_is_the_vendors_profile() {
    let config = Config::parse("").unwrap();
    assert_eq!(
        (config.profile, config.quiet_ms),
        (Profile::Vendor, 600_000)
    );
    assert!(config.ignored.is_empty() && config.extra_fatal.is_empty());
    assert!(config.overrides.is_empty());
    let windows: Vec<u64> = config.windows.keys().copied().collect();
    assert_eq!(windows, [13, 31]);
    assert!(
        config
            .windows
            .values()
            .all(|window| window.severity == Severity::Info),
        "what the vendor calls the application's fault changes no health by itself"
    );
}

#[test]
fn everything_can_be_said() {
    let config = Config::parse(
        r#"{"profile":"gke","ignored":[43],"extra_fatal":[13,31],"quiet_s":60,
            "overrides":{"45":{"severity":"warning","action":"CONTACT_SUPPORT"}},
            "windows":{"94":{"same":"link","count":5,"within_s":3600,"apart_s":1,"quiet_s":0,"severity":"fatal",
                             "action":"RUN_FIELDDIAG"}}}"#,
    )
    .unwrap();
    assert_eq!((config.profile, config.quiet_ms), (Profile::Gke, 60_000));
    assert!(config.ignored.contains(&43) && config.extra_fatal.contains(&31));
    let expected = Override {
        severity: Some(Severity::Warning),
        action: Some(Action::ContactSupport),
    };
    assert_eq!(config.overrides.get(&45), Some(&expected));
    let expected = Window {
        same: Same::Link,
        count: 5,
        within_ms: 3_600_000,
        apart_ms: 1000,
        quiet_ms: 0,
        severity: Severity::Fatal,
        action: Action::RunFieldDiag,
    };
    assert_eq!(config.windows, BTreeMap::from([(94, expected)]));
}

#[test]
fn a_window_is_turned_off_by_a_count_of_none_and_left_out_for_an_ignored_code() {
    let config = Config::parse(r#"{"windows":{"13":{"count":0}}}"#).unwrap();
    assert_eq!(config.windows.keys().copied().collect::<Vec<_>>(), [31]);
    let config = Config::parse(r#"{"ignored":[31]}"#).unwrap();
    assert_eq!(config.windows.keys().copied().collect::<Vec<_>>(), [13]);
    let config = Config::parse(r#"{"windows":{"13":{}}}"#).unwrap();
    let window = config.windows.get(&13).unwrap();
    assert_eq!(
        (window.same, window.count, window.quiet_ms, window.severity),
        (Same::Gpu, 3, 86_400_000, Severity::Warning)
    );
}

#[track_caller]
fn refused(text: &str, part: &str) {
    let error = Config::parse(text).unwrap_err();
    assert!(error.contains(part), "{text}: {error}");
}

#[test]
fn errors_name_the_key_and_what_to_do() {
    refused(r#"{"ignore":[43]}"#, "ignore: unknown key");
    refused(r#"{"ignore":[43]}"#, "the keys here are profile, ignored,");
    refused(r#"{"profile":"aks"}"#, "profile: expected one of vendor");
    refused(
        r#"{"ignored":["43"]}"#,
        "ignored: expected a list of numbers",
    );
    refused(
        r#"{"ignored":[-1]}"#,
        "ignored: expected a list of numbers like [43, 63], found -1",
    );
    refused(
        r#"{"quiet_s":1}"#,
        "quiet_s: expected a whole number from 60 to 604800, found 1",
    );
    refused(
        r#"{"overrides":{"43":{"severity":"bad"}}}"#,
        "overrides.43.severity: expected one of info",
    );
    refused(
        r#"{"overrides":{"43":{"action":"RESET"}}}"#,
        "overrides.43.action: expected one of NONE",
    );
    refused(
        r#"{"overrides":{"43":{"because":1}}}"#,
        "overrides.43.because: unknown key; remove it or correct its spelling; the keys here are severity, action",
    );
    refused(
        r#"{"overrides":{"x43":{}}}"#,
        "overrides.x43: the key must be a code",
    );
    refused(
        r#"{"ignored":[43],"extra_fatal":[43]}"#,
        "ignored: 43 is also in",
    );
    refused(
        r#"{"extra_fatal":[43],"overrides":{"43":{}}}"#,
        "extra_fatal: 43 is also in",
    );
}

#[test]
fn errors_of_windows_name_the_key_and_what_to_do() {
    refused(
        r#"{"windows":{"13":{"same":"sm"}}}"#,
        "windows.13.same: expected one of gpu, gpc-tpc, link",
    );
    refused(
        r#"{"windows":{"13":{"count":17}}}"#,
        "windows.13.count: expected a whole number from 0 to 16, found 17",
    );
    refused(
        r#"{"windows":{"13":{"within_s":59}}}"#,
        "windows.13.within_s: expected a whole number from 60 to 2592000, found 59",
    );
    refused(
        r#"{"windows":{"13":{"within":3}}}"#,
        "windows.13.within: unknown key",
    );
    refused(
        r#"{"windows":{"13":{"count":3,"within_s":120,"apart_s":60}}}"#,
        "windows.13: 3 faults at least apart_s 60 apart take longer than within_s 120",
    );
    let many: Vec<String> = (0..=WINDOWS_MAX)
        .map(|code| format!("\"{code}\":{{}}"))
        .collect();
    refused(
        &format!("{{\"windows\":{{{}}}}}", many.join(",")),
        "windows: 9 codes, at most 8",
    );
}
