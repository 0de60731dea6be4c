//! How far a scenario is.

use crate::control::ScenarioStatus;

use super::Scenario;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Playing,
    Played,
    Stopped,
    Failed(String),
}

#[derive(Debug)]
pub(crate) struct Timeline {
    name: String,
    steps: usize,
    pub(crate) done: usize,
    state: State,
    /// It waits for a moment that has not come.
    pub(crate) idle: bool,
    /// It was told to end.
    pub(crate) stop: bool,
    /// The call (and GPU) that a step waits for.
    awaited: Option<(String, Option<u32>)>,
    /// It was made.
    pub(crate) called: bool,
}

impl Timeline {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        Self {
            name: scenario.name.clone(),
            steps: scenario.steps.len(),
            done: 0,
            state: State::Playing,
            idle: false,
            stop: false,
            awaited: None,
            called: false,
        }
    }

    pub(crate) fn playing(&self) -> bool {
        self.state == State::Playing
    }

    /// From now on, `call` counts.
    pub(crate) fn await_call(&mut self, call: &str, gpu: Option<u32>) {
        self.awaited = Some((call.to_owned(), gpu));
        self.called = false;
    }

    /// Told of each call; whether it is the one that a step waits for.
    pub(crate) fn called(&mut self, call: &str, gpu: Option<u32>) -> bool {
        let awaited = self
            .awaited
            .as_ref()
            .is_some_and(|(awaited, of)| awaited == call && (of.is_none() || *of == gpu));
        if awaited {
            self.awaited = None;
            self.called = true;
        }
        awaited
    }

    /// It is over: all done, stopped, or for this reason.
    pub(crate) fn end(&mut self, failure: Option<String>) {
        self.state = match failure {
            Some(reason) => State::Failed(reason),
            None if self.done == self.steps => State::Played,
            None => State::Stopped,
        };
    }

    /// What came of it.
    ///
    /// # Errors
    /// A step was refused.
    pub(crate) fn outcome(&self) -> Result<String, String> {
        let Self {
            name, done, steps, ..
        } = self;
        match &self.state {
            State::Failed(reason) => Err(format!("{name}: {reason}")),
            State::Playing => Ok(format!("playing {name}: {done} of {steps} steps")),
            State::Played => Ok(format!("played {name}: {steps} steps")),
            State::Stopped => Ok(format!("stopped {name}: {done} of {steps} steps")),
        }
    }

    pub(crate) fn status(&self) -> ScenarioStatus {
        let state = match &self.state {
            State::Playing => "playing".to_owned(),
            State::Played => "played".to_owned(),
            State::Stopped => "stopped".to_owned(),
            State::Failed(reason) => format!("failed: {reason}"),
        };
        ScenarioStatus {
            name: self.name.clone(),
            done: self.done,
            steps: self.steps,
            state,
        }
    }
}
