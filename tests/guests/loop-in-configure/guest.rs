//! Never comes back from `configure`.
//!
//! Must come of it: refused at load, at the start deadline.

use std::hint::black_box;

use device_policy_sdk::Info;

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, _: &Me, _: &str) -> Result<Info, String> {
        loop {
            black_box(());
        }
    }
}
