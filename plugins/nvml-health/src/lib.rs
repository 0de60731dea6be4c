//! What NVML's readings, and a GPU that is lost or found, say of its health.
//!
//! One file per condition. A condition is judged when a signal brings news for it; a `gpu-found`
//! signal brings a full sample and is news for all. What the device does not tell is not judged:
//! absent is neither ok nor a problem.

mod config;
mod ecc;
mod news;
mod presence;
mod row_remap;
mod temperature;
mod throttle;

#[cfg(test)]
mod tests;

use device_policy_sdk::types::{Decision, Device, Signal};
use device_policy_sdk::verdict::newest;
use device_policy_sdk::{Host, Info, Policy, info, kind, subscribe};

use config::Config;
use news::News;

/// Raised when a key in the state changes its meaning.
const STATE_SCHEMA: u32 = 1;

/// The policy; its config is all that it remembers.
#[derive(Clone, Debug)]
pub struct NvmlHealth {
    config: Config,
}

impl Policy for NvmlHealth {
    fn configure(config: &str) -> Result<(Self, Info), String> {
        let config = Config::parse(config)?;
        let info = info("nvml-health", env!("CARGO_PKG_VERSION"))
            .state_schema(STATE_SCHEMA)
            .subscribe(subscribe::all(kind::GPU_LOST))
            .subscribe(subscribe::all(kind::GPU_FOUND))
            .subscribe(subscribe::all(kind::TIMER));
        let info = presence::declare(info);
        let info = temperature::declare(info);
        let info = ecc::declare(info);
        let info = row_remap::declare(info);
        let info = throttle::declare(info);
        Ok((Self { config }, info))
    }

    fn evaluate(
        &self,
        host: &mut dyn Host,
        device: &Device,
        signals: &[Signal],
    ) -> Result<Decision, String> {
        let mut news = News::new(host, device, signals);
        for signal in signals {
            news.at(signal);
            presence::judge(&mut news);
            if self.config.judges(temperature::CONDITION) {
                temperature::judge(&mut news, self.config.hysteresis_c);
            }
            if self.config.judges(ecc::CONDITION) {
                ecc::judge(&mut news)?;
            }
            if self.config.judges(row_remap::CONDITION) {
                row_remap::judge(&mut news);
            }
            if self.config.judges(throttle::CONDITION) {
                throttle::judge(&mut news, self.config.throttle_quiet_s)?;
            }
        }
        let decision = news.decision();
        Ok(Decision {
            verdicts: newest(decision.verdicts, signals),
            ..decision
        })
    }
}

device_policy_sdk::export!(NvmlHealth);
