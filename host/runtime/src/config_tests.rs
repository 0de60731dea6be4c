use super::*;
use crate::config_api::UNIX_SOCKETS_MAX;

fn load(flags: &[&str]) -> Result<Config, ConfigError> {
    let argv: Vec<OsString> = std::iter::once("device-api-server")
        .chain(flags.iter().copied())
        .map(OsString::from)
        .collect();
    super::load(&argv, &|_| None).map(|loaded| loaded.config)
}

#[track_caller]
fn accepted(flags: &[&str]) -> Config {
    match load(flags) {
        Ok(config) => config,
        Err(error) => panic!("{flags:?}: {error}"),
    }
}

#[track_caller]
fn refused(flags: &[&str], words: &[&str]) {
    let error = load(flags).expect_err("refused").to_string();
    assert!(
        words.iter().all(|word| error.contains(word)),
        "{error:?} lacks one of {words:?}"
    );
}

#[test]
fn the_defaults_are_a_configuration() {
    let config = accepted(&[]);
    assert_eq!(config.platform, Platform::BareMetal);
    assert_eq!(config.kmsg, None);
    let nvml = config.nvml.expect("on");
    assert_eq!((nvml.library, nvml.ignored_xids.len()), (None, 0));
    assert_eq!(config.policies.memory_bytes_max, 16 << 20);
}

#[test]
fn an_address_may_be_turned_off_but_not_all_of_them() {
    assert_eq!(accepted(&["--grpc-address", ""]).api.tcp, None);
    assert!(accepted(&["--unix-socket", ""]).api.unix_sockets.is_empty());
    refused(
        &["--grpc-address=", "--unix-socket="],
        &["--grpc-address", "--unix-socket"],
    );
}

#[test]
fn nvml_and_the_kernel_log_are_there_or_not() {
    assert_eq!(
        accepted(&["--enable-nvml-provider=false", "--nvml-library=/x"]).nvml,
        None
    );
    let kmsg = accepted(&["--kmsg-path", "/x", "--kmsg-drill"]).kmsg;
    assert_eq!(
        kmsg,
        Some(KmsgConfig {
            path: "/x".into(),
            drill: true
        })
    );
    refused(&["--kmsg-drill"], &["--kmsg-drill", "--kmsg-path"]);
}

#[test]
fn two_listeners_on_one_port_are_refused() {
    refused(
        &["--health-port=7", "--metrics-port=7"],
        &["--health-port", "--metrics-port", "7"],
    );
    refused(
        &["--grpc-address=127.0.0.1:8081"],
        &["--grpc-address", "--health-port", "8081"],
    );
    accepted(&[
        "--health-port=0",
        "--metrics-port=0",
        "--grpc-address=127.0.0.1:0",
    ]);
    accepted(&["--grpc-address=127.0.0.1:8081", "--admin-address=127.0.0.2"]);
}

#[test]
fn what_is_out_of_its_range_is_refused_with_the_range() {
    refused(
        &["--policy-deadline=0s"],
        &["--policy-deadline", "0ns", "1ms", "25ms"],
    );
    refused(
        &["--policy-deadline=26ms"],
        &["--policy-deadline", "26ms", "25ms"],
    );
    refused(
        &["--policy-memory=64KiB"],
        &["--policy-memory", "65536", "1048576"],
    );
    refused(&["--policy-memory=2GiB"], &["--policy-memory", "268435456"]);
    refused(
        &["--nvml-poll-interval=1ms"],
        &["--nvml-poll-interval", "100ms"],
    );
    refused(&["--nvml-fault-interval=2m"], &["--nvml-fault-interval"]);
    for flag in ["counter", "limit", "inventory"] {
        let flag = format!("--nvml-{flag}-interval");
        refused(&[&format!("{flag}=1ms")], &[&flag, "100ms"]);
        refused(&[&format!("{flag}=2h")], &[&flag, "3600s"]);
        accepted(&[&format!("{flag}=1h")]);
    }
    refused(
        &["--shutdown-timeout=1h"],
        &["--shutdown-timeout", "3600s", "600s"],
    );
    assert_eq!(
        accepted(&["--shutdown-timeout=0s"]).admin.shutdown_timeout,
        Duration::ZERO
    );
    accepted(&[
        "--policy-deadline=25ms",
        "--policy-memory=256MiB",
        "--nvml-poll-interval=100ms",
    ]);
}

/// To the figures that the NVML source sets its schedules by (`device_api_nvml`'s tests go on from there).
#[test]
fn each_interval_reaches_what_it_is_of_and_nothing_else() {
    let config = accepted(&[
        "--nvml-poll-interval=1s",
        "--nvml-fault-interval=2s",
        "--nvml-counter-interval=3s",
        "--nvml-limit-interval=4s",
        "--nvml-inventory-interval=5s",
        "--nvml-stale-after=6s",
    ]);
    let source = crate::wiring::nvml_source(&config.nvml.expect("on"), Vec::new());
    let intervals = [
        source.poll_interval,
        source.fault_interval,
        source.counter_interval,
        source.limit_interval,
        source.inventory_interval,
        source.stale_after,
    ];
    assert_eq!(intervals, [1, 2, 3, 4, 5, 6].map(Duration::from_secs));
}

#[test]
fn lists_are_bounded_and_without_doubles() {
    refused(
        &["--unix-socket=/a", "--unix-socket=/a"],
        &["\"/a\"", "twice"],
    );
    let many: Vec<String> = (0..=UNIX_SOCKETS_MAX)
        .map(|n| format!("--unix-socket=/{n}"))
        .collect();
    refused(
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
        &["--unix-socket", "9 times", "8"],
    );
}

#[test]
fn h7_policies_are_run_as_the_flags_say() {
    let plain = accepted(&[]).policies;
    assert_eq!(plain.unlisted, values::UnlistedPolicies::Defaults);
    assert!(!plain.safe_mode && plain.file.is_none());
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let strict = accepted(&[
        "--policies-file",
        path,
        "--unlisted-policies=refuse",
        "--safe-mode",
    ])
    .policies;
    assert_eq!(strict.file.as_deref(), Some(file.path()));
    assert_eq!(strict.unlisted, values::UnlistedPolicies::Refuse);
    assert!(strict.safe_mode);
    refused(
        &["--policies-file", &format!("{path}.missing")],
        &["--policies-file", "missing"],
    );
}

#[test]
fn the_policy_directory_must_be_one() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().to_str().expect("UTF-8");
    assert_eq!(
        accepted(&["--policy-dir", path]).policies.dir.as_deref(),
        Some(dir.path())
    );
    refused(
        &["--policy-dir", &format!("{path}/missing")],
        &["--policy-dir", "missing"],
    );
    refused(
        &["--policy-dir", "/dev/null"],
        &["--policy-dir", "/dev/null"],
    );
}

#[test]
fn p4_tls_is_whole_or_not_there() {
    let tls = &["--tls-cert=/c", "--tls-key=/k"];
    let config = accepted(tls).api.tls.expect("TLS");
    assert_eq!(config.client_ca, None);
    refused(&["--tls-cert=/c"], &["--tls-cert without --tls-key"]);
    refused(&["--tls-key=/k"], &["--tls-key without --tls-cert"]);
    refused(&["--tls-client-ca=/ca"], &["--tls-client-ca", "--tls-cert"]);
    refused(&["--tcp-writers=cn:a"], &["--tcp-writers", "--tls-cert"]);
    refused(
        &[tls[0], tls[1], "--tcp-writers=cn:a"],
        &["--tcp-writers", "--tls-client-ca"],
    );
    refused(
        &[tls[0], tls[1], "--insecure-tcp=read"],
        &["--insecure-tcp", "--tls-cert"],
    );
    let api = accepted(&[tls[0], tls[1], "--tls-client-ca=/ca", "--tcp-writers=cn:a"]).api;
    assert_eq!(api.writers_tcp, ["cn:a"]);
}

#[test]
fn p4_plain_tcp_stays_on_the_machine_unless_a_flag_says_otherwise() {
    for wide in ["0.0.0.0:50051", "[::]:50051", "10.0.0.7:50051"] {
        let flag = &*format!("--grpc-address={wide}");
        refused(
            &[flag],
            &["--grpc-address", wide, "--tls-cert", "--insecure-tcp"],
        );
        accepted(&[flag, "--insecure-tcp=read"]);
        accepted(&[flag, "--insecure-tcp=write"]);
        accepted(&[flag, "--tls-cert=/c", "--tls-key=/k"]);
    }
    accepted(&["--grpc-address=[::1]:50051"]);
    accepted(&["--grpc-address=127.0.0.2:50051"]);
}

#[test]
fn limits_reach_what_they_bound() {
    let config = accepted(&["--limit=barrier-wait=100ms", "--policy-deadline=50ms"]);
    assert_eq!(config.limits.barrier_wait, Duration::from_millis(100));
    refused(
        &["--limit=barrier-wait=10ms", "--policy-deadline=6ms"],
        &["--policy-deadline", "5ms"],
    );
    refused(
        &["--limit=watches-per-connection=250"],
        &[
            "watches-per-connection (250)",
            "streams-per-connection (250)",
        ],
    );
    refused(&["--limit=gpus=1", "--limit=gpus=2"], &["gpus", "twice"]);
}

#[test]
fn p2_p3_rows_about_providers_are_kept_in_their_order() {
    let providers = accepted(&[
        "--provider-timeout=uid:7=30s",
        "--provider-timeout=cn:agent=1m",
        "--polarity=Fan*=true-is-healthy",
        "--polarity=FanReady=true-is-problem",
    ])
    .providers;
    let expected = ProviderConfig {
        timeouts: vec![
            ("uid:7".into(), Duration::from_secs(30)),
            ("cn:agent".into(), Duration::from_secs(60)),
        ],
        polarities: vec![
            ("Fan*".to_owned(), Polarity::TrueIsHealthy),
            ("FanReady".to_owned(), Polarity::TrueIsProblem),
        ],
    };
    assert_eq!(providers, expected);
    refused(
        &[
            "--provider-timeout=uid:7=30s",
            "--provider-timeout=uid:7=1m",
        ],
        &["uid:7", "twice"],
    );
    refused(
        &["--provider-timeout=uid:7=10ms"],
        &["--provider-timeout", "10ms", "1s"],
    );
}

#[test]
fn the_store_has_a_place() {
    let expected = StoreConfig {
        mode: StoreMode::Durable,
        dir: "/var/lib/device-api".into(),
        boot_id_file: "/proc/sys/kernel/random/boot_id".into(),
    };
    assert_eq!(accepted(&[]).store, expected);
    let store = accepted(&["--store=memory", "--state-dir=/x", "--boot-id-file=/y"]).store;
    assert_eq!(store.mode, StoreMode::Memory);
    refused(&["--state-dir="], &["--state-dir"]);
    refused(&["--store=disk"], &["--store", "durable", "memory"]);
}

#[test]
fn a_combination_of_the_file_is_refused_with_its_keys_and_lines() {
    #[track_caller]
    fn refused(text: &str, (variable, value): (&str, &str), words: &[&str], not: &str) {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("written");
        let argv = [
            "device-api-server".into(),
            "--config".into(),
            file.path().into(),
        ];
        let environment =
            |asked: &str| (asked == variable).then(|| std::ffi::OsString::from(value));
        let error = super::load(&argv, &environment).expect_err("refused");
        let error = error.to_string();
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{error:?} lacks one of {words:?}"
        );
        assert!(!error.contains(not), "{error:?} names {not:?}");
    }
    let none = ("", "");
    refused(
        "\n\ngrpc-address: 0.0.0.0:1\n",
        none,
        &["beyond this machine", "; set by grpc-address (", "line 3)"],
        "line 1",
    );
    refused(
        "drills: report\nhealth-port: 9090\n",
        none,
        &[
            "both listen on port 9090",
            "; set by health-port (",
            "line 2)",
        ],
        "metrics-port (",
    );
    refused(
        "tls-cert: /x\n",
        none,
        &[
            "--tls-cert without --tls-key",
            "; set by tls-cert (",
            "line 1)",
        ],
        "tls-key (",
    );
    refused(
        "limits:\n  - gpus=7\n  - gpus=8\n",
        none,
        &["twice", "; set by limits ("],
        "gpus (",
    );
    refused(
        "health-port: 1\n",
        ("DEVICE_API_METRICS_PORT", "1"),
        &["; set by DEVICE_API_METRICS_PORT, health-port ("],
        "grpc-address",
    );
}
