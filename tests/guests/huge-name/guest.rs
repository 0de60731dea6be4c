//! Has a name of half a mebibyte: a label, an owner, a file for someone.
//!
//! Must come of it: refused at load, naming the field and its limit.

use device_policy_sdk::{Info, info};

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, _: &Me, _: &str) -> Result<Info, String> {
        Ok(info(&"a".repeat(1 << 19), "1.0.0"))
    }
}
