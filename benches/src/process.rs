//! Servers as processes: started, waited for, killed; what they take of memory and processor time.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;

use crate::bare;

/// How long a server may take to start: far beyond what a busy machine needs.
const START_MAX: Duration = Duration::from_secs(60);

/// What the daemon logs when it is ready.
const STARTED: &str = " started";

/// A server of ours. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// From the start to the word that it is ready.
    pub(crate) ready_after: Duration,
}

impl Process {
    /// Starts `command` and waits until a line of its standard error ends with `word`.
    fn start(mut command: Command, word: &'static str) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stderr = child.stderr.take().context("no standard error")?;
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stderr);
            let mut line = String::new();
            while matches!(lines.read_line(&mut line), Ok(1..)) {
                let ready = line.trim_end().ends_with(word);
                let _started_already = said.send((Instant::now(), std::mem::take(&mut line)));
                if ready {
                    break;
                }
            }
            // Drained, so that a talkative server never waits for us.
            let _until_it_ends = io::copy(&mut lines, &mut io::sink());
        });
        let mut process = Self {
            child,
            ready_after: Duration::ZERO,
        };
        let mut log = String::new();
        loop {
            let Ok((at, line)) = lines.recv_timeout(START_MAX) else {
                bail!(
                    "{} never said {word:?}; it said:\n{log}",
                    command.get_program().display()
                );
            };
            if line.trim_end().ends_with(word) {
                process.ready_after = at - began;
                return Ok(process);
            }
            log.push_str(&line);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bare server, listening on `socket`.
///
/// # Errors
/// It does not start.
pub(crate) fn bare(socket: &Path) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bare").arg(socket);
    Process::start(command, bare::LISTENING)
}

/// The daemon's executable.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) executable: PathBuf,
}

/// Where the daemon keeps what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Memory,
    Durable,
}

/// A simulated NVML.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simulation<'a> {
    /// The library that stands for `libnvidia-ml.so.1`.
    pub(crate) library: &'a Path,
    /// Socket that it takes commands on.
    pub(crate) control: &'a Path,
    pub(crate) gpus: usize,
}

impl Daemon {
    /// Starts it without NVML, with its bundled policies, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready; shows its log.
    pub(crate) fn start(&self, socket: &Path, store: Store, state: &Path) -> Result<Process> {
        let mut command = self.command(socket, store, state)?;
        command.arg("--enable-nvml-provider=false");
        Process::start(command, STARTED)
    }

    /// The same over a simulated NVML of `gpus`, which takes commands on `control`. Its faults count.
    ///
    /// # Errors
    /// It does not become ready; shows its log.
    pub(crate) fn start_simulated(
        &self,
        socket: &Path,
        store: Store,
        state: &Path,
        simulation: &Simulation<'_>,
    ) -> Result<Process> {
        let mut command = self.command(socket, store, state)?;
        command
            .arg(format!("--nvml-library={}", simulation.library.display()))
            .arg("--drills=enforce")
            .env("NVML_SIM_SOCKET", simulation.control)
            .env("NVML_SIM_GPUS", simulation.gpus.to_string());
        Process::start(command, STARTED)
    }

    fn command(&self, socket: &Path, store: Store, state: &Path) -> Result<Command> {
        let mut command = Command::new(&self.executable);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DEVICE_API_") {
                command.env_remove(name);
            }
        }
        command
            .arg(format!("--unix-socket={}", socket.display()))
            .args([
                "--grpc-address=",
                "--admin-address=127.0.0.1",
                "--health-port=0",
                "--metrics-port=0",
            ])
            .env_remove("RUST_LOG");
        fs::create_dir_all(state).with_context(|| format!("cannot create {}", state.display()))?;
        command.arg(match store {
            Store::Memory => "--store=memory",
            Store::Durable => "--store=durable",
        });
        command.arg(format!("--state-dir={}", state.display()));
        Ok(command)
    }
}

/// Processor time that all threads of a process have taken so far. `None` where that can't be read:
/// another user's process, or a kernel that does not count.
pub(crate) fn processor_time(pid: u32) -> Option<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let stat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        sum += stat.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
}
