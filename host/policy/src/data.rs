//! What the host functions of one instance work on: the input of the call in progress and the state
//! it writes.

use std::sync::Arc;

use device_api_core::policy::Evaluation;
use device_api_core::signal::Samples;
use device_api_core::verdict::PolicyState;

use crate::state::Draft;
use crate::telemetry::Telemetry;

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
        }
    }

    /// Sets up what the next call may see. The same in a replay: nothing here reads a clock.
    pub(crate) fn begin(&mut self, evaluation: &mut Evaluation, declared: &[String]) {
        if self.declared.len() != declared.len() {
            self.declared = declared.into();
        }
        self.samples = Arc::clone(&evaluation.samples);
        self.draft = Some(Draft::new(std::mem::take(&mut evaluation.state)));
        self.now_ms = evaluation
            .signals
            .last()
            .map_or(0, |newest| newest.observed_at.unix_ms());
        self.last_error = None;
    }

    /// Takes the state as the call left it, and forgets the call.
    pub(crate) fn end(&mut self) -> PolicyState {
        self.samples = Arc::default();
        self.draft.take().map(Draft::into_state).unwrap_or_default()
    }
}
