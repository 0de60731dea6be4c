//! One running `device-api-server`, and its log.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::PATIENCE;

/// Lines of log that are kept for a failing test to show.
const LINES_MAX: usize = 5000;

/// One line of the daemon's log.
pub type LogLine = String;

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<LogLine>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

/// A daemon of ours. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
}

impl Daemon {
    /// Starts it; its standard error becomes the log.
    ///
    /// # Errors
    /// It can't be run.
    pub fn spawn(mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("running {command:?}"))?;
        let stderr = child.stderr.take().context("no standard error")?;
        let log = Arc::new(Log::default());
        std::thread::Builder::new()
            .name("daemon-log".to_owned())
            .spawn({
                let log = log.clone();
                move || {
                    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                        let mut lines = log.lines.lock().unwrap_or_else(PoisonError::into_inner);
                        if lines.lines.len() == LINES_MAX {
                            lines.lines.pop_front();
                        }
                        lines.lines.push_back(line);
                        log.more.notify_all();
                    }
                    log.lines
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .ended = true;
                    log.more.notify_all();
                }
            })?;
        Ok(Self { child, log })
    }

    /// Waits for a line that holds all of `words`, one that is there already included.
    ///
    /// # Errors
    /// The daemon ended without it, or [`PATIENCE`] is over; shows the log.
    pub fn wait_for(&self, words: &[&str]) -> Result<LogLine> {
        self.wait_for_nth(words, 1)
    }

    /// Waits for the `nth` line, from 1, that holds all of `words`.
    ///
    /// # Errors
    /// As [`Daemon::wait_for`].
    pub fn wait_for_nth(&self, words: &[&str], nth: usize) -> Result<LogLine> {
        let deadline = SystemTime::now() + PATIENCE;
        let mut lines = self
            .log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let is_meant = |line: &&LogLine| words.iter().all(|word| line.contains(word));
            let mut meant = lines.lines.iter().filter(is_meant);
            if let Some(line) = meant.nth(nth.saturating_sub(1)) {
                return Ok(line.clone());
            }
            let left = deadline
                .duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO);
            if lines.ended || left.is_zero() {
                let shown = Vec::from(lines.lines.clone()).join("\n");
                bail!("the daemon never logged {words:?} so often as {nth}; it said:\n{shown}");
            }
            lines = self
                .log
                .more
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<LogLine> {
        self.log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .iter()
            .cloned()
            .collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// It has ended and was waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until it has ended and its log is complete.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = SystemTime::now() + PATIENCE;
        let mut lines = self
            .log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !lines.ended {
            let left = deadline
                .duration_since(SystemTime::now())
                .unwrap_or(Duration::ZERO);
            if left.is_zero() {
                bail!(
                    "the daemon does not end; it said:\n{}",
                    Vec::from(lines.lines.clone()).join("\n")
                );
            }
            lines = self
                .log
                .more
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(lines);
        Ok(self.child.wait()?)
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// As [`Daemon::wait`].
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
