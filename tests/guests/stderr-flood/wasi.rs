//! Writes 200 lines of a kilobyte to standard error, and as many to standard output, at each signal.
//!
//! Must come of it: its own condition; some lines a second, and the number of those left out.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        use std::io::Write as _;
        let line = "flood ".repeat(170);
        for _ in 0..200 {
            // What is refused is as good as written.
            let _ = writeln!(std::io::stderr(), "{line}");
            let _ = writeln!(std::io::stdout(), "{line}");
        }
        Ok(call.each(Me::problem))
    }
}
