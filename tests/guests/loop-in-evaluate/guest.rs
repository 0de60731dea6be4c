//! Never comes back from `evaluate`.
//!
//! Must come of it: `deadline`, at the call deadline and a tick; the vendor's class stands in.

use std::hint::black_box;

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, _: &mut Call<'_>) -> Result<Decision, String> {
        loop {
            black_box(());
        }
    }
}
