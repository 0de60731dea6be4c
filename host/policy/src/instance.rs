//! A policy without a thread of its own: for tools that measure it, or go through it step by step.

use std::fmt;
use std::sync::Arc;

use device_api_core::policy::{Evaluation, Outcome, PolicyInfo};

use crate::runner::Runner;

/// A policy that was loaded and configured, and is asked on the thread that has it. Nobody counts its
/// failures: it is neither paused nor quarantined.
pub struct Instance {
    info: Arc<PolicyInfo>,
    runner: Runner,
}

impl Instance {
    pub(crate) fn new(runner: Runner) -> Self {
        Self {
            info: runner.info(),
            runner,
        }
    }

    #[must_use]
    pub fn info(&self) -> &PolicyInfo {
        &self.info
    }

    /// Evaluates, and leaves it ready for the next time: what the policy's thread does.
    ///
    /// # Errors
    /// As the policy's; a new instance is made then.
    pub fn evaluate(&mut self, evaluation: Evaluation) -> Outcome {
        let outcome = self.runner.evaluate(evaluation);
        self.runner.freshen();
        outcome
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("id", &self.info.id)
            .finish_non_exhaustive()
    }
}
