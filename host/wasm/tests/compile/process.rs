//! The process itself: that it starts, takes nothing along, and ends.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use device_api_wasm::{Limits, LoadError, Worker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::house::{House, PATIENCE, load, slow, small, worker};

#[test]
fn a_worker_that_is_not_there_or_no_program_is_told_of() {
    let mut house = House::new();
    let plain = house.folder.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    for program in [house.folder.path().join("missing"), plain] {
        house.settings.worker = Worker {
            program: program.clone(),
            args: Vec::new(),
        };
        let compiler = house.compiler();
        let error = load(&compiler, &small(1)).unwrap_err();
        assert!(matches!(error, LoadError::WorkerStart { .. }), "{error:?}");
        let program = program.to_str().unwrap();
        assert!(error.to_string().contains(program), "{error}");
        assert_eq!(compiler.counters().refused, [0, 0, 0, 0, 0, 1, 0]);
    }
}

#[test]
fn h10_callers_at_once_are_served_one_after_the_other() {
    let house = House::new();
    let compiler = house.compiler();
    let load = |number| load(&compiler, &small(number)).unwrap();
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..6)
            .map(|caller| scope.spawn(move || load(caller % 2)))
            .collect();
        for load in loads {
            load.join().unwrap();
        }
    });
    let counters = compiler.counters();
    assert_eq!((counters.compiled, counters.cache_hits), (2, 4));
}

#[test]
fn a_stop_ends_what_runs_and_lets_the_cache_serve_on() {
    let house = House::new();
    let compiler = house.compiler();
    load(&compiler, &small(1)).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&compiler, &slow()).unwrap_err());
        compiler.stop();
        let error = loading.join().unwrap();
        assert!(matches!(error, LoadError::Stopped), "{error:?}");
    });
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    let error = load(&compiler, &small(2)).unwrap_err();
    assert!(matches!(error, LoadError::Stopped), "{error:?}");
    load(&compiler, &small(1)).unwrap();
    assert_eq!(compiler.counters().refused, [0, 0, 0, 0, 0, 0, 2]);
}

#[test]
fn h10_what_is_put_off_ends_at_once_and_is_compiled_when_it_goes_on() {
    let mut house = House::new();
    let name = rename(&mut house, 'o');
    let compiler = house.compiler();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(&compiler, &slow()).unwrap_err());
        wait("it does not start", || is_at_work(of_name(&name)));
        compiler.put_off();
        let error = loading.join().unwrap();
        assert!(matches!(error, LoadError::PutOff), "{error:?}");
        assert!(error.is_transient() && !error.is_too_much_to_compile());
    });
    assert_eq!(of_name(&name), None);
    compiler.go_on();
    load(&compiler, &small(1)).unwrap();
    // It is nobody's failure.
    assert_eq!(compiler.counters().refused, [0; 7]);
}

/// Not even what a C library opened without care: the driver's device would stay in use.
#[test]
fn h10_the_process_inherits_no_descriptor() {
    let mut house = House::new();
    let name = rename(&mut house, 'i');
    let compiler = house.compiler();
    std::thread::scope(|scope| {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (read, write): (OwnedFd, OwnedFd) = (read, write);
        fcntl_setfd(&read, FdFlags::CLOEXEC).unwrap();
        let loading = scope.spawn(|| {
            // `write` is inherited: nothing marks it.
            load(&compiler, &slow()).unwrap_err()
        });
        wait("it does not start", || is_at_work(of_name(&name)));
        drop(write);
        // The pipe hangs up once nobody has its other end, the process included.
        let mut fds = [PollFd::new(&read, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE / 2).unwrap();
        let hung_up = poll(&mut fds, Some(&patience)).unwrap();
        assert_eq!(hung_up, 1, "a process holds what it should not");
        assert!(fds[0].revents().contains(PollFlags::HUP));
        assert!(!loading.is_finished(), "it must be alive to prove anything");
        compiler.stop();
        loading.join().unwrap();
    });
}

/// Gives the worker a name of its own, by which its process is found.
fn rename(house: &mut House, letter: char) -> String {
    let name = format!("{letter}{}", std::process::id());
    let link = house.folder.path().join(&name);
    symlink(&house.settings.worker.program, &link).unwrap();
    house.settings.worker.program = link;
    name
}

fn of_name(name: &str) -> Option<u32> {
    let named = |(process, of): (u32, String)| (of == name).then_some(process);
    processes().into_iter().find_map(named)
}

/// Number and name of each process that lives.
fn processes() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap();
    let read = |entry: fs::DirEntry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let is_alive = !matches!(after.split_ascii_whitespace().next()?, "Z" | "X");
        is_alive.then_some((process, name))
    };
    entries.filter_map(|entry| read(entry.ok()?)).collect()
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Names the worker that this program, run again, is to compile with.
const ROLE: &str = "COMPILE_WITH";

#[test]
fn h10_the_process_ends_with_the_daemon() {
    if let Some(program) = std::env::var_os(ROLE) {
        let mut house = House::new();
        house.settings.worker.program = program.into();
        house.settings.cache_dir = None;
        let _ = load(&house.compiler(), &slow());
        return;
    }
    let mut house = House::new();
    let name = rename(&mut house, 'd');
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::h10_the_process_ends_with_the_daemon"])
        .env(ROLE, &house.settings.worker.program)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait("it does not start", || is_at_work(of_name(&name)));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait("it goes on without its daemon", || of_name(&name).is_none());
}

/// It has bounded itself, and is past reading what it was asked: half a second of work.
fn is_at_work(process: Option<u32>) -> bool {
    const TICKS: u64 = 50;
    let stat = process.and_then(|process| fs::read_to_string(format!("/proc/{process}/stat")).ok());
    let Some(stat) = stat else { return false };
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return false;
    };
    let user = fields.split_ascii_whitespace().nth(11);
    user.is_some_and(|ticks| ticks.parse::<u64>().unwrap() >= TICKS)
}

/// Started by hand, or by one that is no parent of it, it does nothing.
#[test]
fn what_is_not_asked_by_its_parent_does_not_answer() {
    for request in [&b""[..], b"hello", &[0; 4096]] {
        let mut process = Command::new(worker().program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It may be gone before it is all written.
        let _ = process.stdin.take().unwrap().write_all(request);
        let mut answer = Vec::new();
        process
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut answer)
            .unwrap();
        assert_eq!((answer.len(), process.wait().unwrap().code()), (0, Some(1)));
    }
}

/// What it may use is set by itself, so a look at a living one tells.
#[test]
fn h10_the_process_is_bounded_and_yields() {
    let mut house = House::new();
    let name = rename(&mut house, 'b');
    let compiler = house.compiler();
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| compiler.load(&slow(), Limits::default()).unwrap_err());
        let mut found = None;
        wait("it does not start", || {
            found = of_name(&name);
            is_at_work(found)
        });
        let process = Path::new("/proc").join(found.unwrap().to_string());
        let limits = fs::read_to_string(process.join("limits")).unwrap();
        let soft = |what: &str| {
            let line = limits
                .lines()
                .find_map(|line| line.strip_prefix(what))
                .unwrap();
            line.split_ascii_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(
            (soft("Max core file size"), soft("Max file size")),
            ("0".into(), "0".into())
        );
        let address_space: u64 = soft("Max address space").parse().unwrap();
        let program = address_space - house.settings.memory_bytes_max;
        assert!(program < 256 << 20, "{program}");
        let stat = fs::read_to_string(process.join("stat")).unwrap();
        let niceness = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_ascii_whitespace()
            .nth(16);
        assert_eq!(niceness, Some("10"));
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        assert!(environment.is_empty(), "{environment:?}");
        compiler.stop();
        loading.join().unwrap();
    });
}
