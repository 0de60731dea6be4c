//! Refuses its configuration, with half a mebibyte of escape sequences for a reason.
//!
//! Must come of it: refused at load, its words cut and escaped.

use device_policy_sdk::Info;

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, _: &Me, _: &str) -> Result<Info, String> {
        Err("\u{1b}[31mno\n".repeat(1 << 16))
    }
}
