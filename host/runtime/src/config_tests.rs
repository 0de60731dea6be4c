use super::*;

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
    refused(
        &["--policy-memory=2GiB"],
        &["--policy-memory", "1073741824"],
    );
    refused(
        &["--nvml-poll-interval=1ms"],
        &["--nvml-poll-interval", "100ms"],
    );
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
        "--policy-memory=1GiB",
        "--nvml-poll-interval=100ms",
    ]);
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
