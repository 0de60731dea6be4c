//! What NVML's readings, and a GPU that is lost or found, say of its health. docs/nvml-health.md has all of it as a
//! table, which the tests compare with this.
//!
//! One file per condition. A condition is judged when a signal brings news for it; a `gpu-found`
//! signal brings a full sample and is news for all. What the device does not tell is not judged:
//! absent is neither ok nor a problem. Thresholds are the device's, or the configuration's; where neither has
//! one there is no condition.

mod config;
mod ecc;
mod fabric;
mod faults;
mod news;
mod nvlink;
mod pcie;
mod points;
mod power;
mod presence;
mod rates;
mod retired_pages;
mod row_remap;
mod sram;
mod temperature;
mod throttle;
mod wait;

#[cfg(test)]
mod tests;

use device_policy_sdk::types::{Decision, Device, Signal};
use device_policy_sdk::verdict::newest;
use device_policy_sdk::{Host, Info, Policy, info, kind, subscribe};

use config::{Config, OPTIONAL};
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
        let parts = [
            presence::declare,
            throttle::declare,
            power::declare,
            ecc::declare,
            sram::declare,
            row_remap::declare,
            retired_pages::declare,
            pcie::declare,
            nvlink::declare,
            fabric::declare,
        ];
        let info = parts.into_iter().fold(info, |info, declare| declare(info));
        let info = temperature::declare(info, &config);
        let info = rates::declare(info, &config);
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
            for condition in OPTIONAL {
                if self.config.judges(condition) {
                    self.judge(&mut news, condition)?;
                } else {
                    news.not_judged(condition);
                }
            }
        }
        let decision = news.decision();
        Ok(Decision {
            verdicts: newest(decision.verdicts, signals),
            ..decision
        })
    }
}

impl NvmlHealth {
    /// # Errors
    /// The host's state quota.
    fn judge(&self, news: &mut News<'_>, condition: &str) -> Result<(), String> {
        let config = &self.config;
        match condition {
            temperature::CONDITION => temperature::judge_die(news, config)?,
            temperature::MEMORY => temperature::judge_memory(news, config)?,
            throttle::CONDITION => throttle::judge(news, config.throttle_quiet_s)?,
            power::CONDITION => power::judge(news, config.power_limit_min_w)?,
            ecc::CONDITION => ecc::judge(news)?,
            sram::CONDITION => sram::judge(news),
            row_remap::CONDITION => row_remap::judge(news)?,
            retired_pages::CONDITION => retired_pages::judge(news, config.retired_pages_max)?,
            pcie::CONDITION => pcie::judge(news, config.pcie_settle_s)?,
            nvlink::CONDITION => nvlink::judge(news, config.nvlink_settle_s)?,
            fabric::CONDITION => fabric::judge(news, config.fabric_settle_s)?,
            rate => {
                for group in rates::GROUPS.iter().filter(|group| group.condition == rate) {
                    rates::judge(news, group, config)?;
                }
            }
        }
        Ok(())
    }
}

device_policy_sdk::export!(NvmlHealth);
