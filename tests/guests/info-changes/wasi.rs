//! Describes itself otherwise each time it is configured, by clock and chance: other types, other reasons.
//! (Without WASI a guest has neither: the same text gives the same answer, whether it wants or not.)
//!
//! Must come of it: what the first instance said holds. A later one that says otherwise is not used, and its
//! calls are `unavailable`; where the host's chance is the same for each instance, there is no difference.

use std::hash::{BuildHasher as _, RandomState};
use std::time::SystemTime;

use device_policy_sdk::Info;
use device_policy_sdk::types::Decision;

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        let chance = RandomState::new().hash_one(SystemTime::now());
        Ok(me
            .ordinary()
            .owns(&format!("Whim{chance:016x}"), true, &["Hostile"]))
    }

    /// Traps at every other signal, so that new instances are made.
    #[expect(clippy::panic, reason = "what it is for")]
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        if call
            .signals
            .iter()
            .any(|signal| signal.seq.is_multiple_of(2))
        {
            panic!("once more");
        }
        Ok(call.each(Me::problem))
    }
}
