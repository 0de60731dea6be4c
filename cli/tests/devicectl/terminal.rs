//! What `devicectl` is to a terminal and to a shell: colours there alone, and a script of completions (what bash
//! makes of it is tried in `tests/tests/devicectl`).

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use device_api_proto::native::Health;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::daemon::start;
use crate::{answer, devicectl, gpu};

/// Beginning of a colour.
const COLOUR: &str = "\x1b[";

/// Runs it on a terminal of its own, and gives what that shows.
fn on_terminal(mut command: Command) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let mut options = OpenOptions::new();
    let terminal = options.read(true).write(true).open(name.to_str().unwrap());
    let terminal = terminal.unwrap();
    let side = || Stdio::from(OwnedFd::from(terminal.try_clone().unwrap()));
    command
        .env("TERM", "xterm-256color")
        .stdin(side())
        .stdout(side())
        .stderr(side());
    let mut child = command.spawn().unwrap();
    // Ours, and those that the command keeps: with the last of them the reading ends.
    drop((command, terminal));
    let mut shown = Vec::new();
    let mut master = File::from(master);
    let mut buffer = [0; 1024];
    // Where nobody has the other side open any more, Linux says EIO.
    while let Ok(read @ 1..) = master.read(&mut buffer) {
        shown.extend_from_slice(buffer.get(..read).unwrap());
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn colours_are_for_terminals_unless_someone_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _daemon = start(&socket, &[gpu("GPU-a", 1, Health::Unhealthy)], 1, 1);
    let get = |flags: &[&str]| {
        let args = [&["get", "gpus"], flags].concat();
        let mut command = devicectl(&socket, &args);
        command.env_remove("NO_COLOR");
        command
    };
    #[track_caller]
    fn check(shown: &str, is_coloured: bool) {
        assert!(shown.contains("Unhealthy"), "{shown}");
        assert_eq!(shown.contains(COLOUR), is_coloured, "{shown:?}");
    }
    let piped = |mut command: Command| {
        String::from_utf8(command.env("TERM", "xterm").output().unwrap().stdout).unwrap()
    };
    let with = |mut command: Command, name: &str, value: &str| {
        command.env(name, value);
        command
    };
    check(&on_terminal(get(&[])), true);
    check(&on_terminal(get(&["--color=never"])), false);
    check(&on_terminal(with(get(&[]), "NO_COLOR", "1")), false);
    check(&on_terminal(with(get(&[]), "NO_COLOR", "")), true);
    check(
        &on_terminal(with(get(&["--color=always"]), "NO_COLOR", "1")),
        true,
    );
    check(&piped(get(&[])), false);
    check(&piped(get(&["--color=auto"])), false);
    check(&piped(get(&["--color=always"])), true);
    let json = on_terminal(get(&["-o", "json"]));
    assert!(!json.contains(COLOUR), "{json:?}");
}

#[test]
fn completions_are_of_the_commands_that_there_are() {
    let nowhere = std::path::Path::new("/no/such/socket");
    for (shell, begins) in [
        ("bash", "_devicectl()"),
        ("zsh", "#compdef devicectl"),
        ("fish", "function __fish_devicectl"),
    ] {
        let (code, script, errors) = answer(nowhere, &["completions", shell]);
        assert_eq!((code, &*errors), (Some(0), ""), "needs no daemon");
        assert!(script.contains(begins), "{shell}: {script}");
        for word in ["doctor", "log-level", "incidents", "--color", "quarantine"] {
            assert!(
                script.contains(word.trim_start_matches('-')),
                "{shell}: no {word}"
            );
        }
    }
    let (code, _, errors) = answer(nowhere, &["completions", "tcsh"]);
    assert_eq!(code, Some(2), "{errors}");
}

#[test]
fn a_socket_by_the_environment_is_no_flag_that_usage_asks_for() {
    let said = |socket: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_devicectl"));
        let output = command.env("DEVICE_API_SOCKET", socket).args(args).output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, usage) = said("/no/such", &["gpu", "clear"]);
    assert_eq!(code, Some(2));
    assert!(
        usage.contains("Usage: devicectl gpu clear") && !usage.contains("--socket"),
        "{usage}"
    );
    let (code, error) = said("/no/such", &["get", "gpus"]);
    assert_eq!(code, Some(3));
    assert!(error.contains("/no/such: no such file"), "{error}");
    let (_, error) = said("/no/such", &["get", "gpus", "--socket=/nor/this"]);
    assert!(error.contains("/nor/this: no such file"), "{error}");
}

#[test]
fn the_exit_codes_of_the_help_are_those_of_the_document() {
    let nowhere = std::path::Path::new("/no/such/socket");
    let (code, help, _) = answer(nowhere, &["--help"]);
    assert_eq!(code, Some(0));
    let (_, codes) = help.split_once("Exit codes:\n").unwrap();
    let document = include_str!("../../../docs/devicectl.md");
    let mut listed = 0;
    for line in codes.lines().filter(|line| line.starts_with("  ")) {
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {} |", meaning.replace("doctor", "`doctor`"));
        assert!(document.contains(&row), "no row {row:?}");
        listed += 1;
    }
    assert_eq!(listed, 4);
    for (code, args) in [
        (Some(0), &["--version"][..]),
        (Some(1), &["doctor"]),
        (Some(2), &["nonsense"]),
        (Some(3), &["get", "gpus"]),
        (Some(3), &["log-level", "debug"]),
    ] {
        let (got, _, errors) = answer(nowhere, args);
        assert_eq!(got, code, "{args:?}: {errors}");
    }
}
