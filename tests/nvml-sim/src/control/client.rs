//! The Rust side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, EccKind, LINE_MAX, Readings, Request, Status};
use crate::scenario::Scenario;

/// A connection to a running simulation. Calls block until they are answered: about a second
/// where nobody takes the events.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no simulated NVML answers on {}: start a daemon on libnvml_sim.so with NVML_SIM_SOCKET set to this path",
        path.display()
    )]
    Connect { path: PathBuf, source: io::Error },
    #[error("the connection to {} broke: see whether the daemon still runs", path.display())]
    Exchange { path: PathBuf, source: io::Error },
    #[error("what listens on {} is no simulated NVML: it answered {answer:?}", path.display())]
    Answer {
        path: PathBuf,
        answer: String,
        source: serde_json::Error,
    },
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// # Errors
    /// [`ClientError::Connect`] if nobody listens.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref().to_owned();
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self {
                path,
                stream: BufReader::new(stream),
            }),
            Err(source) => Err(ClientError::Connect { path, source }),
        }
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the simulation's words; the others if there is no answer.
    pub fn request(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let line = self.exchange(request);
        let line = line.map_err(|source| ClientError::Exchange {
            path: self.path.clone(),
            source,
        })?;
        let answer: Answer = serde_json::from_str(&line).map_err(|source| ClientError::Answer {
            path: self.path.clone(),
            answer: line,
            source,
        })?;
        if answer.ok {
            Ok(answer)
        } else {
            Err(ClientError::Refused(
                answer.error.unwrap_or_else(|| "no reason given".to_owned()),
            ))
        }
    }

    fn exchange(&mut self, request: &Request) -> io::Result<String> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer = String::new();
        // A node's status is a few hundred bytes a GPU.
        if self
            .stream
            .by_ref()
            .take(4 * LINE_MAX)
            .read_line(&mut answer)?
            == 0
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }

    /// XIDs, in NVML and the kernel log, within the same millisecond.
    ///
    /// # Errors
    /// As [`Self::request`], like all that follow.
    pub fn xid(&mut self, gpu: u32, codes: &[u64]) -> Result<Answer, ClientError> {
        self.request(&Request::Xid {
            gpu,
            codes: codes.to_vec(),
            count: 1,
            only: None,
        })
    }

    /// Errors in DRAM.
    pub fn ecc(&mut self, gpu: u32, kind: EccKind, count: u32) -> Result<Answer, ClientError> {
        self.request(&Request::Ecc {
            gpu,
            kind,
            location: Default::default(),
            count,
        })
    }

    pub fn temperature(&mut self, gpu: u32, celsius: u32) -> Result<Answer, ClientError> {
        self.request(&Request::Temperature { gpu, celsius })
    }

    pub fn lost(&mut self, gpu: u32) -> Result<Answer, ClientError> {
        self.request(&Request::Lost { gpu })
    }

    pub fn found(&mut self, gpu: u32) -> Result<Answer, ClientError> {
        self.request(&Request::Found { gpu })
    }

    pub fn recovery_action(&mut self, gpu: u32, value: u32) -> Result<Answer, ClientError> {
        self.request(&Request::RecoveryAction {
            gpu,
            value,
            only: None,
        })
    }

    /// `call` is a symbol (`nvmlDeviceGetTemperature`).
    pub fn hang(&mut self, gpu: Option<u32>, call: &str) -> Result<Answer, ClientError> {
        self.request(&Request::Hang {
            gpu,
            call: Some(call.to_owned()),
        })
    }

    /// Ends all hangs.
    pub fn unhang(&mut self) -> Result<Answer, ClientError> {
        self.request(&Request::Unhang {
            gpu: None,
            call: None,
        })
    }

    /// Figures by name, such as `utilization.gpu`.
    pub fn set(&mut self, gpu: u32, figures: &[(&str, u64)]) -> Result<Answer, ClientError> {
        let figures = figures
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value));
        let readings = Readings(figures.collect());
        self.request(&Request::Set { gpu, readings })
    }

    /// What `nvidia-smi --gpu-reset` does.
    pub fn gpu_reset(&mut self, gpu: u32) -> Result<Answer, ClientError> {
        self.request(&Request::GpuReset { gpu })
    }

    /// Plays a scenario; `speed` 0 leaves the clock to [`Self::advance`]. `wait` waits for its end.
    pub fn play(
        &mut self,
        scenario: Scenario,
        speed: f64,
        wait: bool,
    ) -> Result<Answer, ClientError> {
        let scenario = Box::new(scenario);
        self.request(&Request::Play {
            scenario,
            speed,
            wait,
        })
    }

    /// Moves the clock; what came due is done when this returns.
    pub fn advance(&mut self, by: Duration) -> Result<Answer, ClientError> {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.request(&Request::Advance { ms })
    }

    pub fn unload(&mut self) -> Result<Answer, ClientError> {
        self.request(&Request::Unload)
    }

    pub fn load(&mut self) -> Result<Answer, ClientError> {
        self.request(&Request::Load)
    }

    /// One GPU, or all, as new.
    pub fn reset(&mut self, gpu: Option<u32>) -> Result<Answer, ClientError> {
        self.request(&Request::Reset { gpu })
    }

    pub fn status(&mut self) -> Result<Status, ClientError> {
        let answer = self.request(&Request::Status)?;
        answer
            .status
            .ok_or_else(|| ClientError::Refused("the answer has no status".to_owned()))
    }
}
