//! Declares the host's own `Ready` its own.
//!
//! Must come of it: refused at load, naming the type.

use device_policy_sdk::Info;

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.ordinary().owns("Ready", false, &["Healthy"]))
    }
}
