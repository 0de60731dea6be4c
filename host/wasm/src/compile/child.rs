//! The daemon's end of a compiler process: starts it, feeds it, reads its answer, and sees to it that
//! it is gone.
//!
//! ```text
//!  spawn ──▶ feeding and reading, one poll for all pipes ──exit──▶ reaped: answer, or how it died
//!    │           │ deadline, stop, put off, too long an answer
//!    │           └──────────────▶ killed ──▶ reaped: why
//!    └─ can't be started
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::compile::Worker;
use crate::compile::frame::{AnswerHead, NoAnswer};
use crate::compile::procfs;
use crate::compile::seal::Broken;
use crate::words::one_line;

/// Kept of what the process writes to its standard error: a panic's message, or the allocator's.
const STDERR_BYTES_MAX: usize = 2 << 10;

/// Read at once: what a pipe holds.
const CHUNK_BYTES: usize = 64 << 10;

/// What is to be compiled, and within what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) head: &'a [u8],
    pub(super) component: &'a [u8],
    pub(super) deadline: Duration,
    /// Readable when the daemon stops.
    pub(super) stop: BorrowedFd<'a>,
    /// Readable when others go first.
    pub(super) put_off: BorrowedFd<'a>,
}

/// What the process wrote before it ended well.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) head: AnswerHead,
    /// The head and what followed it.
    pub(super) whole: Vec<u8>,
}

/// Why there is no answer. The process is gone in each case.
#[derive(Debug)]
pub(super) enum Failure {
    Start(io::Error),
    Deadline {
        cpu: Duration,
    },
    Stopped,
    PutOff,
    NoAnswer(NoAnswer),
    Died {
        status: ExitStatus,
        said: String,
    },
    /// Of a pipe, or of waiting.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// Runs one process from start to end. It is tied to the calling thread: it dies with it.
pub(super) fn run(worker: &Worker, job: &Job<'_>) -> Result<Written, Failure> {
    let mut running = Running::start(worker)?;
    let begun = Instant::now();
    while !running.is_over() {
        let left = job.deadline.saturating_sub(begun.elapsed());
        if left.is_zero() {
            let cpu = procfs::cpu_time(&running.child.0.id().to_string()).unwrap_or_default();
            return Err(Failure::Deadline { cpu });
        }
        running.step(job, left)?;
    }
    running.finish()
}

/// A process that is killed and reaped when dropped, however that comes about.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Either fails only where it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Running {
    child: Reaped,
    /// Readable once the process has ended; none before Linux 5.3, where the end of its output counts.
    pidfd: Option<OwnedFd>,
    input: Option<ChildStdin>,
    /// Bytes of head and component that were written.
    fed: usize,
    output: Option<ChildStdout>,
    errors: Option<ChildStderr>,
    head: Option<AnswerHead>,
    whole: Vec<u8>,
    said: Vec<u8>,
    ended: bool,
}

/// What a wait was over for, beside the pipes.
#[derive(Default)]
struct Heard {
    stop: bool,
    put_off: bool,
    /// The process.
    ended: bool,
}

impl Running {
    fn start(worker: &Worker) -> Result<Self, Failure> {
        let mut child = Command::new(&worker.program)
            .args(&worker.args)
            .env_clear()
            .current_dir("/")
            // A terminal's Ctrl-C is for the daemon, which then ends this in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map(Reaped)
            .map_err(Failure::Start)?;
        let input = child.0.stdin.take();
        let output = child.0.stdout.take();
        let errors = child.0.stderr.take();
        for pipe in [
            input.as_ref().map(AsFd::as_fd),
            output.as_ref().map(AsFd::as_fd),
            errors.as_ref().map(AsFd::as_fd),
        ] {
            let pipe = pipe.ok_or_else(|| io::Error::other("a pipe is missing"))?;
            fcntl_setfl(pipe, fcntl_getfl(pipe)? | OFlags::NONBLOCK)?;
        }
        let pid = i32::try_from(child.0.id()).ok().and_then(Pid::from_raw);
        let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self {
            child,
            pidfd,
            input,
            fed: 0,
            output,
            errors,
            head: None,
            whole: Vec::new(),
            said: Vec::new(),
            ended: false,
        })
    }

    /// Once it has ended, what it left in the pipes was read; see [`Running::step`].
    fn is_over(&self) -> bool {
        let is_silent = self.output.is_none() && self.errors.is_none();
        self.ended || (self.pidfd.is_none() && is_silent)
    }

    /// Waits for something to happen, for `left` at most, and sees to it.
    fn step(&mut self, job: &Job<'_>, left: Duration) -> Result<(), Failure> {
        let heard = self.wait(job, left)?;
        if heard.stop {
            return Err(Failure::Stopped);
        }
        // Not what is done a moment before.
        if heard.put_off && !heard.ended {
            return Err(Failure::PutOff);
        }
        // Also when it has ended: what it wrote before is in the pipes. None of the three waits.
        self.feed(job);
        self.read_output()?;
        self.read_errors();
        self.ended = heard.ended;
        Ok(())
    }

    fn wait(&self, job: &Job<'_>, left: Duration) -> Result<Heard, Failure> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(job.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(job.put_off, PollFlags::IN),
        ];
        if let Some(pidfd) = &self.pidfd {
            fds.push(PollFd::new(pidfd, PollFlags::IN));
        }
        if let Some(input) = &self.input {
            fds.push(PollFd::new(input, PollFlags::OUT));
        }
        if let Some(output) = &self.output {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        if let Some(errors) = &self.errors {
            fds.push(PollFd::new(errors, PollFlags::IN));
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Heard::default()),
            Err(error) => return Err(error.into()),
        }
        let mut is_ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(Heard {
            stop: is_ready.next().unwrap_or(false),
            put_off: is_ready.next().unwrap_or(false),
            ended: self.pidfd.is_some() && is_ready.next().unwrap_or(false),
        })
    }

    /// Writes what fits. A process that does not read on is one that has an answer, or is dead, which
    /// shows elsewhere.
    fn feed(&mut self, job: &Job<'_>) {
        let Some(input) = &mut self.input else { return };
        loop {
            let left = match job.head.get(self.fed..) {
                Some(left) if !left.is_empty() => left,
                Some(_) | None => job
                    .component
                    .get(self.fed.saturating_sub(job.head.len())..)
                    .unwrap_or_default(),
            };
            if left.is_empty() {
                break;
            }
            match input.write(left) {
                Ok(written) => self.fed += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.input = None;
    }

    /// Reads what is there, no more than the head of the answer announces.
    fn read_output(&mut self) -> Result<(), Failure> {
        while let Some(output) = &mut self.output {
            let wanted = match &self.head {
                Some(head) => AnswerHead::LENGTH.saturating_add(head.payload_bytes()),
                None => AnswerHead::LENGTH,
            };
            // One byte more than is wanted, to see that nothing follows.
            let room = wanted.saturating_sub(self.whole.len()).max(1);
            match read_some(output, &mut self.whole, room)? {
                Some(0) => self.output = None,
                Some(_) => {}
                None => break,
            }
            if self.whole.len() > wanted {
                return Err(Failure::NoAnswer(NoAnswer::Broken(Broken::Length)));
            }
            if self.head.is_none() && self.whole.len() >= AnswerHead::LENGTH {
                let head = AnswerHead::decode(&self.whole).map_err(Failure::NoAnswer)?;
                self.whole
                    .try_reserve_exact(head.payload_bytes())
                    .map_err(|_| io::Error::from(ErrorKind::OutOfMemory))?;
                self.head = Some(head);
            }
        }
        Ok(())
    }

    /// Reads to the end, and keeps the beginning.
    fn read_errors(&mut self) {
        while let Some(errors) = &mut self.errors {
            match read_some(errors, &mut self.said, CHUNK_BYTES) {
                Ok(Some(0)) | Err(_) => self.errors = None,
                Ok(Some(_)) => self.said.truncate(STDERR_BYTES_MAX),
                Ok(None) => break,
            }
        }
    }

    /// The answer of a process that ended well, or how it ended.
    fn finish(mut self) -> Result<Written, Failure> {
        if self.pidfd.is_none() {
            // It closed its output; what it does besides is not waited for.
            let _ = self.child.0.kill();
        }
        let status = self.child.0.wait()?;
        let is_whole = |head: &AnswerHead| {
            self.whole.len() == AnswerHead::LENGTH.saturating_add(head.payload_bytes())
        };
        let answered = self.head.filter(is_whole);
        match answered {
            Some(head) if status.success() || self.pidfd.is_none() => Ok(Written {
                head,
                whole: self.whole,
            }),
            Some(_) | None => Err(Failure::Died {
                status,
                said: said(&self.said),
            }),
        }
    }
}

/// Appends at most `max` bytes, and a chunk: how many, 0 at the end, `None` when there are none now.
fn read_some(from: &mut impl Read, to: &mut Vec<u8>, max: usize) -> io::Result<Option<usize>> {
    let mut chunk = [0; CHUNK_BYTES];
    let room = chunk.len().min(max);
    let Some(room) = chunk.get_mut(..room) else {
        return Ok(Some(0));
    };
    loop {
        match from.read(room) {
            Ok(read) => {
                to.extend_from_slice(room.get(..read).unwrap_or_default());
                return Ok(Some(read));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// What a process wrote to its standard error, as part of one log line.
fn said(bytes: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(bytes), STDERR_BYTES_MAX)
}

/// How a process ended: `exit status 1`, `signal 9 (SIGKILL)`.
pub(super) fn ending(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return format!("exit status {}", status.code().unwrap_or_default());
    };
    let name = match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    };
    format!("signal {signal}{name}")
}
