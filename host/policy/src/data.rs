//! What the host functions of one instance work on: the input of the call in progress and the state
//! it writes.

use std::collections::VecDeque;
use std::sync::Arc;

use device_api_core::device::DeviceInfo;
use device_api_core::policy::Evaluation;
use device_api_core::signal::{Samples, printable};
use device_api_core::verdict::PolicyState;
use device_api_wasm::wasi::{self, Stream, Wasi, WasiHost};

use crate::state::Draft;
use crate::telemetry::Telemetry;

/// Lines of standard error that are kept: a runtime's report of a failure, whose message may be its
/// first line or its last.
const STDERR_LINES_KEPT: usize = 8;

/// Bytes kept of each: eight together are no more than a failure's text shows.
const STDERR_LINE_BYTES_KEPT: usize = 120;

/// Longest line written for a guest: one screen line, with room for a panic's place.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub(crate) struct GuestData {
    pub(crate) telemetry: Arc<Telemetry>,
    /// Keys that the policy declared; none while it is being configured.
    pub(crate) declared: Arc<[String]>,
    pub(crate) samples: Arc<Samples>,
    /// None while the policy is being configured: no device is at hand then.
    pub(crate) draft: Option<Draft>,
    pub(crate) now_ms: u64,
    /// The last line logged as an error during the call: a panic's words, since a trap has none.
    pub(crate) last_error: Option<String>,
    wasi: Wasi,
    /// The call's last lines on standard error: where a runtime without our SDK says why it traps.
    stderr: VecDeque<String>,
    /// What the call's random numbers come from: the device and the newest signal's number.
    drawn_from: Option<(Arc<DeviceInfo>, u64)>,
}

impl GuestData {
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self {
            telemetry,
            declared: Arc::from([]),
            samples: Arc::default(),
            draft: None,
            now_ms: 0,
            last_error: None,
            wasi: Wasi::default(),
            stderr: VecDeque::new(),
            drawn_from: None,
        }
    }

    /// Sets up what the next call may see. The same in a replay: nothing here reads a clock.
    pub(crate) fn begin(&mut self, evaluation: &mut Evaluation, declared: &[String]) {
        if self.declared.len() != declared.len() {
            self.declared = declared.into();
        }
        self.samples = Arc::clone(&evaluation.samples);
        self.draft = Some(Draft::new(std::mem::take(&mut evaluation.state)));
        let newest = evaluation.signals.last();
        self.now_ms = newest.map_or(0, |newest| newest.observed_at.unix_ms());
        let seq = newest.map_or(0, |newest| newest.seq.0);
        self.drawn_from = Some((Arc::clone(&evaluation.device), seq));
        self.last_error = None;
        self.stderr.clear();
        self.wasi.begin();
    }

    /// Takes the state as the call left it, and forgets the call.
    pub(crate) fn end(&mut self) -> PolicyState {
        wasi::flush(self);
        self.samples = Arc::default();
        self.draft.take().map(Draft::into_state).unwrap_or_default()
    }

    /// What the guest said before its call failed: the last line it logged as an error, else the last
    /// lines of its standard error.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        wasi::flush(self);
        let stderr = || {
            let lines: Vec<&str> = self.stderr.iter().map(String::as_str).collect();
            (!lines.is_empty()).then(|| lines.join(" | "))
        };
        self.last_error.clone().or_else(stderr)
    }
}

impl WasiHost for GuestData {
    fn wasi(&mut self) -> &mut Wasi {
        &mut self.wasi
    }

    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn seed(&self) -> u64 {
        let Some((device, seq)) = &self.drawn_from else {
            return FNV_OFFSET;
        };
        let bytes = device.uuid.as_str().bytes().chain(seq.to_le_bytes());
        bytes.fold(FNV_OFFSET, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
        })
    }

    fn line(&mut self, stream: Stream, text: &str) {
        if let Some(suppressed) = self.telemetry.admit_line() {
            let policy = self.telemetry.name();
            let text = printable(text, LOG_LINE_BYTES_MAX);
            match stream {
                Stream::Stdout => {
                    tracing::info!(target: "policy", policy, suppressed, stream = "stdout", "{text}");
                }
                Stream::Stderr => {
                    tracing::warn!(target: "policy", policy, suppressed, stream = "stderr", "{text}");
                }
            }
        }
        if stream == Stream::Stderr {
            if self.stderr.len() == STDERR_LINES_KEPT {
                self.stderr.pop_front();
            }
            self.stderr
                .push_back(printable(text, STDERR_LINE_BYTES_KEPT));
        }
    }
}

/// FNV-1a: spreads an identifier over 64 bits, the same on every machine.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
