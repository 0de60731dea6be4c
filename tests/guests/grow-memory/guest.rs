//! Takes memory until there is none.
//!
//! Must come of it: `trap`, naming the limit of linear memory.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, _: &mut Call<'_>) -> Result<Decision, String> {
        let mut hoard = Vec::new();
        loop {
            hoard.push(vec![1_u8; 1 << 20]);
        }
    }
}
