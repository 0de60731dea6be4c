//! Looks for what lies about on the node, and leaves something there.
//!
//! Must come of it: its own condition, which says that nothing of it worked.

use std::fs;

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let worked = [
            fs::read("/etc/passwd").is_ok(),
            fs::read("/proc/self/environ").is_ok(),
            fs::read("../../etc/passwd").is_ok(),
            fs::read_dir("/").is_ok(),
            fs::read_dir(".").is_ok(),
            fs::metadata("/").is_ok(),
            fs::write("/tmp/owned", "owned").is_ok(),
            fs::write("owned", "owned").is_ok(),
            fs::create_dir("owned").is_ok(),
            fs::remove_dir_all("/var").is_ok(),
        ];
        let worked = worked.iter().filter(|worked| **worked).count();
        Ok(call.each(|me, signal| me.problem(signal).message(format!("{worked} worked"))))
    }
}
