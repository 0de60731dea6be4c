//! Declares 10,000 condition types.
//!
//! Must come of it: refused at load, naming the field and its limit.

use device_policy_sdk::Info;

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok((0..10_000).fold(me.ordinary(), |info, at| {
            info.owns(&format!("Type{at}"), true, &["Hostile"])
        }))
    }
}
