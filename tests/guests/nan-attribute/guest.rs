//! Says NaN and the infinities, where a number is asked for.
//!
//! Must come of it: `invalid`, naming the attribute.

use device_policy_sdk::types::{Attr, Decision, Value};

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let seq = call.signals.first().map_or(0, |signal| signal.seq);
        let real = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let real = real
            .get(usize::try_from(seq % 3).unwrap_or(0))
            .copied()
            .unwrap_or(f64::NAN);
        Ok(call.each(|me, signal| {
            me.problem(signal).attr(Attr {
                key: "how-much".to_owned(),
                value: Value::Real(real),
            })
        }))
    }
}
