//! Reads the daemon's environment, where other programs keep their secrets.
//!
//! Must come of it: its own condition, which says that there is none.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let worked = std::env::vars_os().count()
            + usize::from(std::env::var_os("PATH").is_some())
            + usize::from(std::env::current_dir().is_ok_and(|folder| folder.as_os_str() != "/"));
        Ok(call.each(|me, signal| me.problem(signal).message(format!("{worked} worked"))))
    }
}
