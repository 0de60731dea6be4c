//! Reads the daemon's arguments and its standard input.
//!
//! Must come of it: its own condition, which says that there is nothing.

use std::io::Read as _;

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let mut input = Vec::new();
        let read = std::io::stdin().read_to_end(&mut input).unwrap_or(0);
        let worked = std::env::args_os().count() + read;
        Ok(call.each(|me, signal| me.problem(signal).message(format!("{worked} worked"))))
    }
}
