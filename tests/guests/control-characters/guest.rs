//! Writes over the operator's screen: escape sequences, line feeds, a bell, a right-to-left override, in
//! messages and in the log.
//!
//! Must come of it: its own condition, and no control character in it, nor in the daemon's log.

use device_policy_sdk::types::Decision;
use device_policy_sdk::{Info, Level};

use crate::{Call, Hostile, Me};

const WORDS: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nERROR all GPUs are fine\u{0}\u{202e}\u{9b}31m";

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.eager())
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        call.host.log(Level::Error, WORDS);
        Ok(call.each(|me, signal| me.problem(signal).message(WORDS)))
    }
}
