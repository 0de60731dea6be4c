//! Programs that serve a test, and end with it.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::binary;

/// Lines of a log that a failure shows.
const LINES_SHOWN: usize = 20;

/// The same command, which the kernel ends with the thread that starts it: a test's process that is killed drops nothing.
///
/// # Errors
/// `test-leash` was not built.
pub fn leashed(command: &Command) -> Result<Command> {
    let mut leash = Command::new(binary("test-leash")?);
    leash
        .arg(std::process::id().to_string())
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => leash.env(name, value),
            None => leash.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        leash.current_dir(folder);
    }
    Ok(leash)
}

/// A program that serves until this is dropped, or the test's process ends; what it says goes to a file.
#[derive(Debug)]
pub struct Program {
    process: OwnedFd,
    /// Never locked: several may share what holds this.
    ends: Mutex<Receiver<std::io::Result<ExitStatus>>>,
    has_ended: Option<ExitStatus>,
    log: PathBuf,
}

impl Program {
    /// # Errors
    /// It can't be run, or the log can't be written.
    pub fn spawn(command: &Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| log.display().to_string())?;
        let mut leash = leashed(command)?;
        leash
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let (begun, begins) = channel();
        let (ended, ends) = channel();
        // Its parent, to the kernel: a test's own thread ends with the test, and others may share the program.
        std::thread::Builder::new()
            .name("program".to_owned())
            .spawn(move || look_after(leash, &begun, &ended))?;
        let process = begins.recv().context("its thread ended")?;
        Ok(Self {
            process: process.with_context(|| format!("running {command:?}"))?,
            ends: Mutex::new(ends),
            has_ended: None,
            log: log.to_owned(),
        })
    }

    /// How it ended; `None`: not within that time.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn ended(&mut self, within: Duration) -> Result<Option<ExitStatus>> {
        if self.has_ended.is_none() {
            let ends = self.ends.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.has_ended = match ends.recv_timeout(within) {
                Ok(status) => Some(status?),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => bail!("nobody waits for it"),
            };
        }
        Ok(self.has_ended)
    }

    /// Its last words.
    ///
    /// # Errors
    /// The log can't be read.
    pub fn said(&self) -> Result<String> {
        let text = fs::read(&self.log).with_context(|| self.log.display().to_string())?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LINES_SHOWN);
        Ok(lines.get(from..).unwrap_or_default().join("\n"))
    }
}

/// Until it ends.
fn look_after(
    mut command: Command,
    begun: &Sender<Result<OwnedFd>>,
    ended: &Sender<std::io::Result<ExitStatus>>,
) {
    let started = command.spawn().map_err(anyhow::Error::from);
    let mut child = match started.and_then(held) {
        Ok((process, child)) => {
            // Whoever asked waits for it.
            let _ = begun.send(Ok(process));
            child
        }
        Err(error) => {
            let _ = begun.send(Err(error));
            return;
        }
    };
    let _ = ended.send(child.wait());
}

/// A number may be another's after its process has ended; what is opened is not.
fn held(mut child: Child) -> Result<(OwnedFd, Child)> {
    let pid = Pid::from_raw(i32::try_from(child.id())?).context("no pid")?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok((process, child)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.has_ended.is_none() {
            // Fails only where it has ended meanwhile.
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            let ends = self.ends.get_mut().unwrap_or_else(PoisonError::into_inner);
            let _ = ends.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use crate::PATIENCE;

    /// Serves as long as nobody ends it.
    fn for_ever(log: &Path) -> Result<Program> {
        Program::spawn(
            Command::new("sh").args(["-c", "echo $$; exec cat /dev/zero >/dev/null"]),
            log,
        )
    }

    /// Its number, once it has said it.
    fn number(log: &Path) -> Result<Pid> {
        loop {
            let said = fs::read_to_string(log)?;
            if said.ends_with('\n') {
                return Pid::from_raw(said.trim().parse()?).context("no pid");
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn its_end_is_told_and_dropping_ends_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let script = "echo a; echo b >&2; exit 3";
        let mut program = Program::spawn(Command::new("sh").args(["-c", script]), &log)?;
        for _ in 0..2 {
            let status = program.ended(PATIENCE)?.context("it goes on")?;
            assert_eq!(status.code(), Some(3));
        }
        assert_eq!(program.said()?, "a\nb");

        let mut program = for_ever(&log)?;
        assert_eq!(program.ended(Duration::ZERO)?, None);
        let process = pidfd_open(number(&log)?, PidfdFlags::empty())?;
        drop(program);
        assert!(pidfd_send_signal(process, Signal::KILL).is_err());
        Ok(())
    }

    /// What the test below runs, and kills.
    #[test]
    #[ignore = "run by the test below it"]
    fn has_a_program() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let mut program = for_ever(&log)?;
        writeln!(std::io::stdout(), "{}", number(&log)?.as_raw_nonzero())?;
        let ended = program.ended(PATIENCE)?;
        bail!("not killed: {ended:?}")
    }

    #[test]
    fn it_does_not_outlive_a_test_that_is_killed() -> Result<()> {
        let mut harness = Command::new(std::env::current_exe()?);
        harness
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("program::tests::has_a_program")
            .stdout(Stdio::piped());
        let mut test = harness.spawn()?;
        let said = BufReader::new(test.stdout.take().context("no output")?);
        // After the test's name, where tests run one by one.
        let last = |line: std::io::Result<String>| line.ok()?.split(' ').next_back()?.parse().ok();
        let number = said.lines().find_map(last);
        let number = Pid::from_raw(number.context("no program")?).context("no pid")?;
        let process = pidfd_open(number, PidfdFlags::empty())?;
        test.kill()?;
        test.wait()?;
        let mut ends = [PollFd::new(&process, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE)?;
        assert_eq!(poll(&mut ends, Some(&patience))?, 1, "it goes on");
        Ok(())
    }
}
