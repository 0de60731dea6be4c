//! Bad input: a clear one-line error that says what to do, and a daemon that stays up wherever it can.

#![expect(
    clippy::expect_used,
    reason = "helpers of tests: a panic is a failed test"
)]

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use device_api_proto::{native, upstream};
use device_api_tests::{Node, binary, condition_of, guests, health_of};
use tonic::Code;

/// Runs a daemon that must refuse to start, and returns its exit code and its last line.
fn refused(args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary("device-api-server")?);
    command.args([
        "--grpc-address=127.0.0.1:0",
        "--admin-address=127.0.0.1",
        "--enable-nvml-provider=false",
    ]);
    if !args.iter().any(|arg| arg.starts_with("--health-port")) {
        command.arg("--health-port=0");
    }
    let Output { status, stderr, .. } = command.arg("--metrics-port=0").args(args).output()?;
    let text = String::from_utf8_lossy(&stderr).into_owned();
    Ok((
        status.code(),
        text.trim_end()
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned(),
    ))
}

#[track_caller]
fn check(args: &[&str], code: i32, words: &[&str]) {
    let (status, line) = refused(args).expect("the daemon runs");
    assert_eq!(status, Some(code), "{args:?}: {line}");
    for word in words {
        assert!(line.contains(word), "{args:?}: no {word:?} in {line:?}");
    }
}

#[test]
fn usage_errors_name_the_flag_the_value_and_what_is_expected() {
    check(&["--no-such-flag"], 2, &["--no-such-flag", "--help"]);
    check(&["--health-port=70000"], 2, &["--health-port", "70000"]);
    check(&["--drills=maybe"], 2, &["--drills", "maybe", "enforce"]);
    check(
        &["--shutdown-timeout=soon"],
        2,
        &["--shutdown-timeout", "soon"],
    );
    check(&["--config=/no/such/file.yaml"], 2, &["/no/such/file.yaml"]);
    check(&["--policy-dir=/no/such/folder"], 2, &["/no/such/folder"]);
    let long = format!("--unix-socket=/tmp/{}.sock", "x".repeat(120));
    check(&[&long], 2, &["107"]);
}

#[test]
fn a_configuration_file_is_refused_by_key_and_line() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "log-format: json\nshutdown-timout: 5s\n")?;
    check(
        &[&format!("--config={}", file.display())],
        2,
        &["shutdown-timout", "2", "shutdown-timeout"],
    );
    Ok(())
}

/// The configuration alone, with a variable: its exit code, and what it says.
fn checked(variable: (&str, &str), args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary("device-api-server")?);
    command.env(variable.0, variable.1).arg("--check-config");
    let Output { status, stderr, .. } = command.args(args).output()?;
    let text = String::from_utf8_lossy(&stderr).into_owned();
    Ok((status.code(), text))
}

#[test]
fn a_filter_with_which_it_would_not_start_fails_the_check_too() -> Result<()> {
    for (filter, word) in [
        ("foo=bar", "foo=bar"),
        ("dbug", "no level"),
        ("info,,nvml", "no level"),
    ] {
        let (code, text) = checked(("RUST_LOG", filter), &[])?;
        ensure!(code == Some(2) && text.lines().count() == 1, "{text}");
        ensure!(text.contains("RUST_LOG") && text.contains(word), "{text}");
    }
    let (code, text) = checked(("RUST_LOG", "info,device_api_nvml=debug"), &[])?;
    ensure!(code == Some(0) && text.is_empty(), "{text}");
    // With -v it is not read.
    ensure!(checked(("RUST_LOG", "dbug"), &["-v"])?.0 == Some(0));
    Ok(())
}

#[test]
fn what_the_file_sets_wrongly_together_is_named_by_its_keys() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "insecure-tcp: off\n\ngrpc-address: 0.0.0.0:1\n")?;
    let (code, text) = checked(("RUST_LOG", ""), &["--config", &file.to_string_lossy()])?;
    ensure!(code == Some(2), "{text}");
    ensure!(
        text.contains("beyond this machine")
            && text.contains("set by ")
            && text.contains("grpc-address ("),
        "{text}"
    );
    ensure!(text.contains("config.yaml, line 3)"), "{text}");
    Ok(())
}

#[test]
fn a_port_in_use_names_its_flag() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = format!("--unix-socket={}", dir.path().join("s").display());
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    check(
        &[&socket, &format!("--health-port={port}")],
        1,
        &["--health-port", &port.to_string()],
    );
    Ok(())
}

#[test]
fn a_socket_path_that_something_else_holds_is_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    std::fs::write(&file, "precious")?;
    check(
        &[&format!("--unix-socket={}", file.display())],
        1,
        &["file", "socket"],
    );
    assert_eq!(std::fs::read_to_string(&file)?, "precious");
    let live = dir.path().join("live");
    let _listener = UnixListener::bind(&live)?;
    check(
        &[&format!("--unix-socket={}", live.display())],
        1,
        &["live"],
    );
    assert!(live.exists());
    Ok(())
}

#[tokio::test]
async fn a_stale_socket_file_is_taken_over() -> Result<()> {
    let builder = Node::builder()?;
    drop(UnixListener::bind(builder.dir().join("device.sock"))?);
    let node = builder.start()?;
    assert_eq!(node.healthy().await?.list().await?.gpus.len(), 8);
    Ok(())
}

#[tokio::test]
async fn a_library_that_is_no_nvml_is_named_and_the_daemon_serves() -> Result<()> {
    let libc = [
        "/lib/x86_64-linux-gnu/libm.so.6",
        "/lib/aarch64-linux-gnu/libm.so.6",
        "/lib64/libm.so.6",
        "/usr/lib/libm.so.6",
    ];
    let libc = libc
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("no libm on this machine")?;
    let node = Node::builder()?
        .without_nvml()
        .flag("nvml-library", libc)
        .start()?;
    let line = node.daemon.wait_for(&["WARN", libc])?;
    assert!(
        line.contains("NVML") && line.contains("--nvml-library"),
        "{line}"
    );
    assert!(node.native().await?.list().await?.gpus.is_empty());
    Ok(())
}

#[tokio::test]
async fn bad_policies_are_named_and_the_others_judge() -> Result<()> {
    let builder = Node::builder()?;
    let policies = builder.dir().join("policies");
    std::fs::create_dir(&policies)?;
    std::fs::write(policies.join("corrupt.wasm"), "no wasm at all")?;
    std::fs::write(policies.join("module.wasm"), b"\0asm\x01\0\0\0")?;
    let whole = guests::SLOW_GUEST;
    std::fs::write(
        policies.join("truncated.wasm"),
        whole.get(..whole.len() / 2).unwrap_or_default(),
    )?;
    std::fs::write(policies.join("slow.wasm"), whole)?;
    let node = builder
        .flag("policy-dir", policies.display().to_string())
        .flag("policy-deadline", "25ms")
        .start()?;
    for (file, word) in [
        ("corrupt.wasm", "WebAssembly"),
        ("module.wasm", "component"),
        ("truncated.wasm", "truncated"),
    ] {
        let line = node.daemon.wait_for(&["ERROR", file])?;
        assert!(line.contains(word), "{line}");
    }
    let mut client = node.healthy().await?;
    let name = node.uuid(5)?;
    let mut watch = client.watch(0).await?;
    node.sim()?.xid(5, &[79])?;
    // Both judge in the end, also where a starved machine makes the slow one miss its first deadline.
    let both = |gpu: &native::Gpu| {
        ["SlowFault", "XidCriticalError"]
            .iter()
            .all(|type_| condition_of(gpu, type_).is_some())
    };
    let gpu = watch.until(&name, "judged by both", both).await?;
    assert_eq!(health_of(&gpu), native::Health::Unhealthy);
    Ok(())
}

#[tokio::test]
async fn malformed_requests_get_the_right_code_and_change_nothing() -> Result<()> {
    let node = Node::start()?;
    let mut native = node.healthy().await?;
    let before = native.list().await?.resource_version;
    let mut client = node.upstream().await?;
    let opts = |version: &str| {
        Some(upstream::ListOptions {
            resource_version: version.to_owned(),
        })
    };
    for version in ["abc", "-1", "1.5", " 1", "99999999999999999999999999"] {
        let request = upstream::ListGpusRequest {
            namespace: String::new(),
            opts: opts(version),
        };
        let status = client.gpus.list_gpus(request).await.unwrap_err();
        ensure!(
            status.code() == Code::InvalidArgument,
            "{version:?}: {status}"
        );
        ensure!(
            status.message().contains("resource_version"),
            "it names the field: {status}"
        );
    }
    let nameless = upstream::CreateGpuRequest {
        gpu: Some(upstream::Gpu::default()),
        opts: None,
    };
    assert_eq!(
        client.gpus.create_gpu(nameless).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let unknown = upstream::DeleteGpuRequest {
        name: "GPU-nobody".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        client.gpus.delete_gpu(unknown).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(native.list().await?.resource_version, before);
    Ok(())
}
