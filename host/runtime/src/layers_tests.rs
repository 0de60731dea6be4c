use std::collections::BTreeMap;
use std::io::Write;

use super::*;
use crate::values::{Drills, InsecureTcp, LogFormat, StoreMode, TcpAddress};

/// A command line, an environment and a file, to be resolved.
#[derive(Debug, Default)]
struct Sources {
    flags: Vec<&'static str>,
    environment: BTreeMap<String, OsString>,
    file: Option<tempfile::NamedTempFile>,
}

impl Sources {
    fn flags(flags: &[&'static str]) -> Self {
        Self {
            flags: flags.to_vec(),
            ..Self::default()
        }
    }

    fn env(mut self, variable: &str, value: &str) -> Self {
        self.environment.insert(variable.to_owned(), value.into());
        self
    }

    fn file(mut self, text: &str) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("temporary file");
        file.write_all(text.as_bytes()).expect("written");
        self.file = Some(file);
        self
    }

    fn resolve(&self) -> Result<Resolved, LayerError> {
        let mut argv: Vec<OsString> = vec!["device-api-server".into()];
        if let Some(file) = &self.file {
            argv.extend(["--config".into(), file.path().into()]);
        }
        argv.extend(self.flags.iter().map(OsString::from));
        resolve(&argv, &|variable| self.environment.get(variable).cloned())
    }

    #[track_caller]
    fn args(&self) -> Args {
        match self.resolve() {
            Ok(resolved) => resolved.args,
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let error = self.resolve().expect_err("refused").to_string();
        assert!(
            words.iter().all(|word| error.contains(word)),
            "{error:?} lacks one of {words:?}"
        );
        assert_eq!(error.lines().count(), 1, "{error:?}");
    }
}

fn none() -> Sources {
    Sources::default()
}

#[test]
fn defaults_are_the_documented_ones() {
    let args = none().args();
    assert_eq!(
        args.grpc_address,
        TcpAddress::At("127.0.0.1:50051".parse().expect("address"))
    );
    assert_eq!(
        args.unix_socket,
        [PathBuf::from("/var/run/device-api/device.sock")]
    );
    assert_eq!((args.health_port, args.metrics_port), (8081, 9090));
    assert_eq!(args.shutdown_timeout.as_secs(), 10);
    assert_eq!(args.policy_deadline.as_millis(), 5);
    assert_eq!(args.policy_memory.bytes, 16 << 20);
    assert_eq!((args.log_format, args.verbose), (LogFormat::Text, 0));
    assert!(args.enable_nvml_provider && !args.kmsg_drill);
    assert_eq!(
        (args.kmsg_path, args.policy_dir, args.nvml_library),
        (None, None, None)
    );
    assert_eq!(args.drills, Drills::Report);
    assert_eq!(args.store, StoreMode::Durable);
    assert_eq!(args.state_dir, PathBuf::from("/var/lib/device-api"));
    assert_eq!(args.insecure_tcp, InsecureTcp::Off);
    assert_eq!(args.limit, []);
}

#[test]
fn limits_are_a_list_of_flags_a_list_in_the_environment_and_a_mapping_in_the_file() {
    let expected: Vec<_> = ["gpus=7", "request-time=5s"]
        .iter()
        .map(|text| crate::limits::parse(text).expect("a limit"))
        .collect();
    for sources in [
        Sources::flags(&["--limit=gpus=7", "--limit", "request-time=5s"]),
        none().env("DEVICE_API_LIMIT", "gpus=7, request-time=5s"),
        none().file("limits:\n  gpus: 7\n  request-time: 5s\n"),
        none().file("limit: [gpus=7, request-time=5s]\n"),
        Sources::flags(&["--limit=gpus=7", "--limit=request-time=5s"]).file("limits: {gpus: 9}\n"),
    ] {
        assert_eq!(sources.args().limit, expected, "{sources:?}");
    }
    Sources::flags(&["--limit=gpus=0"]).refused(&["--limit", "gpus is 0", "1 to 16384"]);
    none()
        .env("DEVICE_API_LIMIT", "gpu=1")
        .refused(&["DEVICE_API_LIMIT", "\"gpu\"", "gpus"]);
    none().file("\nlimits:\n  watches: none\n").refused(&[
        "limits (",
        "line 3",
        "watches",
        "whole number",
    ]);
}

/// Each layer in turn, for one setting: its value by default, in the file, in the environment, by flag.
#[track_caller]
fn precedence<T: PartialEq + std::fmt::Debug>(
    key: &str,
    (file, environment, flag): (&str, &str, &'static [&'static str]),
    read: impl Fn(&Args) -> T,
    expected: [T; 4],
) {
    let file_text = format!("{key}: {file}\n");
    let variable = variable_of(key);
    let got = [
        none(),
        none().file(&file_text),
        none().file(&file_text).env(&variable, environment),
        Sources::flags(flag)
            .file(&file_text)
            .env(&variable, environment),
    ]
    .map(|sources| read(&sources.args()));
    assert_eq!(got, expected, "{key}");
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    precedence(
        "health-port",
        ("1", "2", &["--health-port", "3"]),
        |args| args.health_port,
        [8081, 1, 2, 3],
    );
    precedence(
        "shutdown-timeout",
        ("1s", "2s", &["--shutdown-timeout=3s"]),
        |args| args.shutdown_timeout.as_secs(),
        [10, 1, 2, 3],
    );
    precedence(
        "enable-nvml-provider",
        ("false", "true", &["--enable-nvml-provider", "false"]),
        |args| args.enable_nvml_provider,
        [true, false, true, false],
    );
    precedence(
        "kmsg-drill",
        ("true", "false", &["--kmsg-drill"]),
        |args| args.kmsg_drill,
        [false, true, false, true],
    );
    precedence(
        "verbose",
        ("2", "1", &["-vvv"]),
        |args| args.verbose,
        [0, 2, 1, 3],
    );
    precedence(
        "log-format",
        ("json", "text", &["--log-format", "json"]),
        |args| args.log_format,
        [
            LogFormat::Text,
            LogFormat::Json,
            LogFormat::Text,
            LogFormat::Json,
        ],
    );
    precedence(
        "grpc-address",
        ("127.0.0.1:1", "", &["--grpc-address", "[::1]:3"]),
        |args| args.grpc_address,
        ["127.0.0.1:50051", "127.0.0.1:1", "", "[::1]:3"].map(|text| match text {
            "" => TcpAddress::Off,
            text => TcpAddress::At(text.parse().expect("address")),
        }),
    );
}

#[test]
fn a_list_is_replaced_by_a_higher_layer_and_never_extended() {
    let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
    precedence(
        "unix-socket",
        (
            "[/f1, /f2]",
            "/e1, /e2",
            &["--unix-socket", "/a", "--unix-socket", "/b"],
        ),
        |args| args.unix_socket.clone(),
        [
            &["/var/run/device-api/device.sock"][..],
            &["/f1", "/f2"],
            &["/e1", "/e2"],
            &["/a", "/b"],
        ]
        .map(paths),
    );
    precedence(
        "nvml-ignored-xids",
        ("[43, 45]", "13,31", &["--nvml-ignored-xids", "94"]),
        |args| args.nvml_ignored_xids.0.iter().copied().collect::<Vec<_>>(),
        [vec![], vec![43, 45], vec![13, 31], vec![94]],
    );
    precedence(
        "allow-write-uid",
        ("5", "6,7", &["--allow-write-uid=8"]),
        |args| args.allow_write_uid.clone(),
        [vec![], vec![5], vec![6, 7], vec![8]],
    );
}

#[test]
fn the_file_may_be_named_by_the_environment_and_a_flag_beats_that() {
    let named = none().file("health-port: 7\n");
    let path = named
        .file
        .as_ref()
        .expect("file")
        .path()
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let by_environment = none().env("DEVICE_API_CONFIG", &path);
    assert_eq!(by_environment.args().health_port, 7);
    let both = none()
        .file("health-port: 8\n")
        .env("DEVICE_API_CONFIG", &path);
    assert_eq!(both.args().health_port, 8);
}

#[test]
fn an_empty_variable_counts_as_not_set_unless_empty_means_none() {
    let sources = none()
        .file("health-port: 7\nnvml-ignored-xids: 43\n")
        .env("DEVICE_API_HEALTH_PORT", "")
        .env("DEVICE_API_KMSG_PATH", "")
        .env("DEVICE_API_NVML_IGNORED_XIDS", "");
    let args = sources.args();
    assert_eq!((args.health_port, args.kmsg_path), (7, None));
    assert!(args.nvml_ignored_xids.0.is_empty());
}

#[test]
fn a_wrong_value_is_refused_naming_where_it_stands_and_what_is_expected() {
    Sources::flags(&["--health-port", "http"]).refused(&["--health-port", "'http'", "0 to 65535"]);
    Sources::flags(&["--health-port", "70000"]).refused(&["--health-port", "'70000'", "65535"]);
    Sources::flags(&["--log-format", "xml"]).refused(&["--log-format", "'xml'", "text, json"]);
    Sources::flags(&["--shutdown-timeout", "10"]).refused(&["--shutdown-timeout", "'10'", "10s"]);
    Sources::flags(&["--enable-nvml-provider=maybe"]).refused(&[
        "--enable-nvml-provider",
        "'maybe'",
        "true, false",
    ]);
    Sources::flags(&["--grpc-address", "localhost"]).refused(&[
        "--grpc-address",
        "'localhost'",
        "127.0.0.1:50051",
    ]);
    Sources::flags(&["--helth-port", "1"]).refused(&[
        "--helth-port",
        "--health-port",
        "see --help",
    ]);
    Sources::flags(&["stray"]).refused(&["stray"]);
    Sources::flags(&["--health-port", "1", "--health-port", "2"])
        .refused(&["--health-port", "multiple times"]);

    let env = |variable: &str, value: &str| none().env(variable, value);
    env("DEVICE_API_HEALTH_PORT", "http").refused(&["DEVICE_API_HEALTH_PORT", "'http'"]);
    env("DEVICE_API_DRILLS", "maybe").refused(&["DEVICE_API_DRILLS", "'maybe'", "report, enforce"]);
    env("DEVICE_API_ALLOW_WRITE_UID", "1,root").refused(&[
        "DEVICE_API_ALLOW_WRITE_UID",
        "'root'",
        "not a name",
    ]);
    env("DEVICE_API_VERBOSE", "yes").refused(&["DEVICE_API_VERBOSE", "'yes'", "0 to 2"]);

    let file = |text: &str| none().file(text);
    file("drills: report\nhealth-port: http\n").refused(&["health-port", "line 2", "'http'"]);
    file("verbose: 3\n").refused(&["verbose", "line 1", "'3'", "0 to 2"]);
    file("health-port: [1, 2]\n").refused(&["health-port", "line 1", "'1,2'"]);
    file("limits:\n  gpus: 5\n  watches: 0\n").refused(&["limits (", "line 3", "watches"]);
    file("allow-write-uid:\n  - 1001\n  - 65534\n").refused(&["line 3", "'65534'"]);
    file("safe-mode: yes\n").refused(&["safe-mode", "'yes'", "true, false"]);
}

#[test]
fn a_word_of_the_file_is_taken_as_a_flag_takes_it() {
    let args = none().file("insecure-tcp: off\n").args();
    assert_eq!(args.insecure_tcp, InsecureTcp::Off);
}

#[test]
fn what_is_no_text_is_refused_naming_the_variable() {
    use std::os::unix::ffi::OsStringExt as _;
    let mut sources = none();
    let value = OsString::from_vec(vec![0xff]);
    let variable = "DEVICE_API_HEALTH_PORT".to_owned();
    sources.environment.insert(variable, value);
    sources.refused(&["DEVICE_API_HEALTH_PORT", "is not UTF-8"]);
}

#[test]
fn a_wrong_value_is_refused_even_where_it_is_overridden() {
    Sources::flags(&["--health-port", "1"])
        .env("DEVICE_API_HEALTH_PORT", "http")
        .refused(&["DEVICE_API_HEALTH_PORT"]);
    Sources::flags(&["--health-port", "1"])
        .file("health-port: http\n")
        .refused(&["health-port", "line 1"]);
}

#[test]
fn an_unknown_key_is_refused_naming_it_and_its_line() {
    none().file("drills: report\nhelth-port: 1\n").refused(&[
        "helth-port",
        "line 2",
        "did you mean 'health-port'",
    ]);
    none()
        .file("zzz: 1\n")
        .refused(&["zzz", "line 1", "--help"]);
    for key in [
        "config",
        "check-config",
        "help",
        "version",
        "health_port",
        "--health-port",
        "v",
    ] {
        none()
            .file(&format!("{key}: x\n"))
            .refused(&["unknown key", key]);
    }
    // Other programs' variables (devicectl's in the same pod), and those that Kubernetes sets for services,
    // begin alike.
    let devicectl = none().env("DEVICE_API_SOCKET", "/x/y").args();
    assert_eq!(devicectl.unix_socket, none().args().unix_socket);
    assert_eq!(
        none()
            .env("DEVICE_API_SERVER_SERVICE_PORT", "1")
            .args()
            .health_port,
        8081
    );
}

#[test]
fn a_missing_file_is_refused() {
    Sources::flags(&["--config", "/nonexistent/x.yaml"])
        .refused(&["/nonexistent/x.yaml", "--config"]);
    none()
        .env("DEVICE_API_CONFIG", "/nonexistent/y.yaml")
        .refused(&["/nonexistent/y.yaml"]);
}

#[test]
fn the_effective_configuration_tells_every_setting_and_whence_it_comes() {
    let sources = Sources::flags(&["--metrics-port=0", "-v"])
        .file("unix-socket: [/a, /b]\nhealth-port: 1\n")
        .env("DEVICE_API_HEALTH_PORT", "2");
    let resolved = sources.resolve().expect("resolved");
    let effective = |key: &str| resolved.effective.get(key).cloned().unwrap_or_default();
    assert_eq!(effective("metrics-port"), "0");
    assert_eq!(effective("health-port"), "2");
    assert_eq!(effective("unix-socket"), serde_json::json!(["/a", "/b"]));
    assert_eq!(effective("verbose"), 1);
    assert_eq!(effective("drills"), "report");
    let whence = resolved.origins.join("; ");
    for origin in [
        "--config",
        "--metrics-port",
        "--verbose",
        "DEVICE_API_HEALTH_PORT",
        "unix-socket (",
    ] {
        assert!(whence.contains(origin), "{whence:?} lacks {origin}");
    }
    assert!(!whence.contains("health-port ("), "overridden: {whence}");
}

#[test]
fn the_effective_configuration_can_be_given_back_as_a_file() {
    let sources = Sources::flags(&[
        "--unix-socket=/a",
        "-vv",
        "--nvml-ignored-xids=43,45",
        "--grpc-address=",
    ]);
    let first = sources.resolve().expect("resolved");
    let text = serde_json::Value::Object(first.effective.clone()).to_string();
    let mut second = none().file(&text).resolve().expect("JSON is YAML");
    second.effective.remove("config");
    assert_eq!(second.effective, first.effective);
}

#[test]
fn whether_to_check_only_is_no_setting() {
    let checked = Sources::flags(&["--check-config"])
        .resolve()
        .expect("resolved");
    assert!(checked.args.check_config);
    assert!(!checked.effective.contains_key(CHECK) && checked.origins.is_empty());
    assert!(
        !none()
            .env("DEVICE_API_CHECK_CONFIG", "true")
            .args()
            .check_config
    );
}

#[test]
fn help_names_the_variable_of_each_flag_and_the_exit_codes() {
    let help = command().render_long_help().to_string();
    for arg in command().get_arguments() {
        let flag = arg.get_long().expect("every setting has a long flag");
        let variable = variable_of(flag);
        assert_eq!(help.contains(&variable), flag != CHECK, "{variable}");
    }
    assert!(help.contains("Exit codes: 0"));
    let shown = Sources::flags(&["--help"]).resolve().expect_err("shown");
    assert!(matches!(shown, LayerError::Shown(_)), "{shown}");
}
