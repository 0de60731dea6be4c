//! One running container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, ensure};
use device_api_tests::tools::succeeds;
use device_api_tests::{Daemon, http, leashed};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space};

use crate::cgroup::Cgroup;

/// The program of this crate that becomes the container's.
const RUNTIME: &str = env!("CARGO_BIN_EXE_test-container");

/// Killed when dropped.
pub(crate) struct Container {
    /// `unshare`, whose child is the first process of the container.
    pub(crate) process: Daemon,
    pub(crate) group: Option<Cgroup>,
    /// What each process of it is told of itself.
    words: Vec<String>,
    has_ended: bool,
}

/// A process that is run in a container finds its mounts made.
const OF_THE_FIRST: [&str; 3] = ["root=", "ro=", "rw="];

/// What makes a container of the words, and of the program, that it is given.
fn runtime() -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--fork"])
        .args(["--kill-child", "--", RUNTIME]);
    command
}

/// What root needs for a container that is another user's, besides what starting it takes: to enter its namespaces, to signal
/// its processes, and to give files to it and look at those.
const OVER_OTHERS: CapabilitySet = CapabilitySet::SYS_PTRACE
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Whether containers can be started here, and used. Root may have few rights, and no users but itself. `root`: an empty folder.
///
/// # Errors
/// Why not.
pub(crate) fn possible(root: &Path) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not run as root".to_owned());
    }
    let sets = capabilities(None).map_err(|error| error.to_string())?;
    let missing = OVER_OTHERS.difference(sets.effective);
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter_names().map(|(name, _)| name).collect();
        return Err(format!("root lacks {}", missing.join(", ")));
    }
    let mut command = runtime();
    command
        .arg(format!("root={}", root.display()))
        // What is mounted of the build, and of the node.
        .arg(format!("ro={RUNTIME}:{RUNTIME}"))
        .arg(format!("ro={}:/node", root.display()))
        .args(["uid=65534", "gid=65534", "group=65534"]);
    succeeds(&mut command)
}

impl Container {
    pub(crate) fn start(
        words: &[String],
        program: &[String],
        group: Option<Cgroup>,
    ) -> Result<Self> {
        let mut command = runtime();
        command.args(words).arg("--").args(program);
        let is_of_all = |word: &&String| !OF_THE_FIRST.iter().any(|first| word.starts_with(first));
        Ok(Self {
            process: Daemon::spawn(leashed(&command)?)?,
            group,
            words: words.iter().filter(is_of_all).cloned().collect(),
            has_ended: false,
        })
    }

    /// Runs one more program in it, as `kubectl exec` does: how it ended, and what it said.
    pub(crate) fn exec(&self, program: &[String]) -> Result<(ExitStatus, String)> {
        let mut command = Command::new(RUNTIME);
        command
            .arg(format!("join={}", self.pid()?.as_raw_nonzero()))
            .args(&self.words)
            .arg("--")
            .args(program);
        let output = command.stdin(Stdio::null()).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8(said)?))
    }

    /// Its first process, as this machine numbers it; there once it has said something.
    pub(crate) fn pid(&self) -> Result<Pid> {
        let outer = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let first = children.split_whitespace().next().context("it has ended")?;
        Pid::from_raw(first.parse()?).context("no process 0")
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        let status = self.process.wait()?;
        self.has_ended = true;
        Ok(status)
    }

    /// Waits for its end: how it ended, and what it said.
    pub(crate) fn end(mut self) -> Result<(ExitStatus, String)> {
        let status = self.wait()?;
        Ok((status, self.process.log().join("\n")))
    }

    /// What the kernel says of its first process.
    pub(crate) fn status(&self) -> Result<BTreeMap<String, String>> {
        let pid = self.pid()?.as_raw_nonzero();
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rows = text.lines().filter_map(|line| line.split_once(':'));
        let rows = rows.map(|(key, value)| {
            let words: Vec<_> = value.split_whitespace().collect();
            (key.to_owned(), words.join(" "))
        });
        Ok(rows.collect())
    }

    /// Where it may write: mount points that are not read-only.
    pub(crate) fn writable(&self) -> Result<Vec<String>> {
        let pid = self.pid()?.as_raw_nonzero();
        let text = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
        let mut found = Vec::new();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            ensure!(words.len() > 6, "{line}");
            if words[5].split(',').any(|option| option == "rw") {
                found.push(words[4].to_owned());
            }
        }
        Ok(found)
    }

    /// Asks in the container's network, where whoever asks the pod's address is answered.
    pub(crate) fn http(&self, port: u16, path: &str) -> Result<(u16, String)> {
        let path = path.to_owned();
        self.in_its_network(move || http(&format!("127.0.0.1:{port}"), &path))
    }

    /// A connection in the container's network.
    pub(crate) fn connect(&self, port: u16) -> Result<TcpStream> {
        self.in_its_network(move || Ok(TcpStream::connect(("127.0.0.1", port))?))
    }

    fn in_its_network<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pid = self.pid()?.as_raw_nonzero();
        let network = File::open(format!("/proc/{pid}/ns/net"))?;
        // A thread of its own, since what it enters it does not leave.
        let asked = std::thread::spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        asked.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    }
}

impl Drop for Container {
    /// Its group can be removed once nothing is in it: with the first process all others end, and `unshare` waits for it.
    fn drop(&mut self) {
        if !self.has_ended && self.signal(Signal::KILL).is_ok() {
            let _ = self.process.wait();
        }
    }
}

#[test]
fn a_container_ends_with_whoever_started_it() -> Result<()> {
    let Some(mut release) = crate::release::Release::install("")? else {
        return Ok(());
    };
    let mut running = release.start_pod()?;
    running.process.wait_for(&["starting"])?;
    running.process.signal(Signal::KILL)?;
    // Its log ends with it, and not before.
    running.wait()?;
    Ok(())
}
