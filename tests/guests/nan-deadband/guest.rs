//! Subscribes to a reading with NaN as its deadband: no change would ever be greater, or not greater.
//!
//! Must come of it: refused at load, naming the field.

use device_policy_sdk::types::{Attr, Subscription, Value};
use device_policy_sdk::{Info, kind};

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        let attr = |key: &str, value| Attr {
            key: key.to_owned(),
            value,
        };
        Ok(me.ordinary().subscribe(Subscription {
            kind: kind::READING.to_owned(),
            where_: vec![
                attr("key", Value::Text("temperature.gpu".to_owned())),
                attr("deadband", Value::Real(f64::NAN)),
            ],
        }))
    }
}
