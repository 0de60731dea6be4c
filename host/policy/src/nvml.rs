//! Interface `nvml`: readings from the sample that travels with the signal. Never calls NVML, so it
//! neither blocks nor differs in a replay.

use device_api_core::signal as core;
use device_api_wasm::Ctx;

use crate::bindings::gpu::device_policy::nvml::{Host, Miss, Reading};
use crate::convert;
use crate::data::GuestData;
use crate::features;

impl Host for Ctx<GuestData> {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Reading, Miss>> {
        self.charge_host_call()?;
        Ok(look_up(&self.data, &key))
    }
}

fn look_up(data: &GuestData, key: &str) -> Result<Reading, Miss> {
    if !data.declared.iter().any(|declared| declared == key) {
        return Err(Miss::NotDeclared);
    }
    match data.samples.get(key) {
        Some(Ok(reading)) => Ok(Reading {
            value: convert::value(&reading.value),
            at_ms: reading.at.unix_ms(),
        }),
        Some(Err(core::Miss::NotSupported)) => Err(Miss::NotSupported),
        Some(Err(core::Miss::NotYet)) => Err(Miss::NotYet),
        Some(Err(core::Miss::Unreachable)) => Err(Miss::Unreachable),
        None if features::knows_reading(key) => Err(Miss::NotYet),
        None => Err(Miss::NoSuchKey),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use device_api_core::clock::WallTime;

    use super::*;
    use crate::bindings::gpu::device_policy::types::Value;
    use crate::telemetry::Telemetry;

    #[test]
    fn every_miss_has_its_word() {
        let mut data = GuestData::new(Arc::new(Telemetry::default()));
        let sample = |value| {
            Ok(core::Reading {
                value: core::Value::Int(value),
                at: WallTime::from_ms(9),
            })
        };
        data.samples = Arc::new(core::Samples::from([
            ("temperature.gpu".to_owned(), sample(41)),
            ("power.draw".to_owned(), sample(7)),
            (
                "ecc.volatile.corrected".to_owned(),
                Err(core::Miss::NotSupported),
            ),
            ("memory.used".to_owned(), Err(core::Miss::Unreachable)),
        ]));
        let declared = [
            "temperature.gpu",
            "ecc.volatile.corrected",
            "memory.used",
            "pcie.replays",
            "aura.colour",
        ];
        data.declared = declared.map(str::to_owned).into();
        let reading = look_up(&data, "temperature.gpu").unwrap();
        assert!(matches!(
            reading,
            Reading {
                value: Value::Int(41),
                at_ms: 9
            }
        ));
        for (key, miss) in [
            ("power.draw", Miss::NotDeclared),
            ("ecc.volatile.corrected", Miss::NotSupported),
            ("memory.used", Miss::Unreachable),
            ("pcie.replays", Miss::NotYet),
            ("aura.colour", Miss::NoSuchKey),
        ] {
            assert_eq!(look_up(&data, key).unwrap_err(), miss, "{key}");
        }
    }
}
