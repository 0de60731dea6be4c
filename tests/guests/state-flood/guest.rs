//! Fills its state with other keys at each signal, as far as the quota lets it, and beyond.
//!
//! Must come of it: its own condition; the quota holds, for each GPU.

use device_policy_sdk::Info;
use device_policy_sdk::types::Decision;

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.eager())
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let seq = call.signals.first().map_or(0, |signal| signal.seq);
        for key in call.host.keys() {
            call.host.delete(&key);
        }
        let mut refused = 0;
        for at in 0_u32..300 {
            let key = format!("{seq}-{at}");
            refused += u32::from(call.host.put(&key, &[0xAA; 512]).is_err());
        }
        let message = format!("{refused} of 300 were refused");
        Ok(call.each(|me, signal| me.problem(signal).message(message.clone())))
    }
}
