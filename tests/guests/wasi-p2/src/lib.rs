//! A policy of the `wasm32-wasip2` target: right about XID 79, and on [`PROBE`] curious about the
//! system beneath it, of which its verdict's message tells.

use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, io, thread};

use device_policy_sdk::types::{Decision, Device, Severity, Signal};
use device_policy_sdk::verdict::problem;
use device_policy_sdk::{Host, Info, Policy, action, clear, info, kind, subscribe};

/// The GPU has fallen off the bus.
const OFF_THE_BUS: u64 = 79;
/// No GPU sends this one: it makes the policy panic.
const PANIC: u64 = 1001;
/// Nor this one: it makes the policy look around.
const PROBE: u64 = 1002;
/// Nor this one: it makes the policy exit.
const EXIT: u64 = 1003;

/// Nor this one: it makes the policy write [`FLOOD_LINES`] lines to standard error.
const FLOOD: u64 = 1004;
const FLOOD_LINES: u32 = 300;

/// Long enough that a wait in earnest would miss any deadline.
const LONG: Duration = Duration::from_secs(3600);

/// The policy.
#[derive(Clone, Copy, Debug)]
pub struct WasiP2;

impl Policy for WasiP2 {
    fn configure(_config: &str) -> Result<(Self, Info), String> {
        let info = info("wasi-p2", env!("CARGO_PKG_VERSION"))
            .owns("RustOffTheBus", true, &["Xid79"])
            .owns("LookedAround", true, &["Asked"])
            .subscribe(subscribe::all(kind::XID));
        Ok((Self, info))
    }

    fn evaluate(
        &self,
        _: &mut dyn Host,
        device: &Device,
        signals: &[Signal],
    ) -> Result<Decision, String> {
        let mut decision = Decision::default();
        for signal in signals {
            match signal.code {
                Some(OFF_THE_BUS) => {
                    say(&format!("{} fell off the bus", device.uuid))?;
                    let verdict = problem("RustOffTheBus", Severity::Fatal, "Xid79", signal)
                        .message("the GPU has fallen off the bus")
                        .action(action::RESTART_BM)
                        .clears(&[clear::NODE_REBOOT]);
                    decision.verdicts.push(verdict.into());
                }
                Some(PANIC) => panicking(),
                Some(PROBE) => {
                    let verdict = problem("LookedAround", Severity::Info, "Asked", signal)
                        .message(found())
                        .clears(&[clear::POLICY]);
                    decision.verdicts.push(verdict.into());
                }
                Some(EXIT) => std::process::exit(3),
                Some(FLOOD) => {
                    for line in 0..FLOOD_LINES {
                        eprintln!("line {line} of a flood");
                    }
                }
                Some(_) | None => {}
            }
        }
        Ok(decision)
    }
}

/// A line on standard output.
fn say(line: &str) -> Result<(), String> {
    use io::Write as _;
    writeln!(io::stdout(), "{line}").map_err(|error| error.to_string())
}

#[expect(clippy::panic, reason = "what this guest is for")]
fn panicking() {
    panic!("the guest met what it can't cope with");
}

/// What the system answers, one word each.
fn found() -> String {
    let mut found = String::new();
    let mut note = |what: &str, answer: &str| {
        // Writing to a string does not fail.
        let _ = write!(found, "{what}={answer};");
    };
    note("environment", &env::vars().count().to_string());
    note("arguments", &env::args().count().to_string());
    note("read", &kind_of(fs::read("/etc/passwd")));
    note("write", &kind_of(fs::write("/tmp/x", "x")));
    note("list", &kind_of(fs::read_dir("/")));
    note("connect", &kind_of(TcpStream::connect("127.0.0.1:443")));
    note("listen", &kind_of(TcpListener::bind("127.0.0.1:0")));
    note("udp", &kind_of(UdpSocket::bind("127.0.0.1:0")));
    note("resolve", &kind_of("localhost:443".to_socket_addrs()));
    let mut input = String::new();
    note("input", &kind_of(io::stdin().read_line(&mut input)));
    let begun = Instant::now();
    thread::sleep(LONG);
    let slept = begun.elapsed();
    note("slept", if slept >= LONG { "to-the-end" } else { "short" });
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |since| since.as_millis());
    note("now-ms", &now_ms.to_string());
    let random = RandomState::new().build_hasher().finish();
    note("random", &random.to_string());
    found
}

fn kind_of<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

device_policy_sdk::export!(WasiP2);
