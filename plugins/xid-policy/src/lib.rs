//! One classification path for XIDs, SXids and the driver's recovery action, whatever the source:
//! the vendor's catalogue, its workflows, and what the operator configured (design N6).
//!
//! An XID becomes a [`Finding`](finding::Finding) in [`judge`]; [`book`] merges it with what else
//! stands for the same condition. 48 has a workflow over time in [`double_bit`], and so have codes that say
//! little without the kernel's line in [`bare`]; the recovery action has a condition of its own in [`recovery`].
//! What another system would say is in [`profile`], how often a code came back in [`window`].

mod bare;
mod book;
mod catalog;
mod config;
mod double_bit;
mod finding;
mod judge;
mod ledger;
mod nvlink;
mod nvlink5;
mod place;
mod profile;
mod record;
mod recovery;
mod sxid;
mod wake;
mod window;

#[cfg(test)]
mod tests;

use device_policy_sdk::types::{Decision, Device, Signal, Verdict};
use device_policy_sdk::verdict::{newest, timer_name};
use device_policy_sdk::{Host, Info, Policy, info, kind, reading, subscribe};

use bare::Bare;
use book::Book;
use config::Config;
use finding::{MERGED, NVSWITCH, RECOVERY, REPEATS, Reason};
use window::Counts;

/// Raised when [`record`] changes.
const STATE_SCHEMA: u32 = 1;

/// The policy; its config is all that it remembers.
#[derive(Clone, Debug)]
pub struct XidPolicy {
    config: Config,
}

impl Policy for XidPolicy {
    fn configure(config: &str) -> Result<(Self, Info), String> {
        let config = Config::parse(config)?;
        let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
        let mut info = info("xid-policy", env!("CARGO_PKG_VERSION"))
            .state_schema(STATE_SCHEMA)
            .subscribe(subscribe::all(kind::XID))
            .subscribe(subscribe::all(kind::SXID))
            .subscribe(subscribe::all(kind::RECOVERY_ACTION))
            .subscribe(subscribe::all(kind::GPU_FOUND))
            .subscribe(subscribe::all(kind::TIMER))
            .readings(&[reading::RECOVERY_ACTION]);
        for condition in MERGED.into_iter().chain([RECOVERY]) {
            info = info.owns(condition, true, &reasons);
        }
        Ok((Self { config }, info))
    }

    fn evaluate(
        &self,
        host: &mut dyn Host,
        device: &Device,
        signals: &[Signal],
    ) -> Result<Decision, String> {
        let mut book = Book::open(host, device, &self.config);
        let mut bare = Bare::open(host, &self.config, &device.driver);
        let mut counts = Counts::default();
        let (waited, waited_bare) = (double_bit::is_waiting(&book), bare::is_waiting(&book));
        let mut decision = Decision::default();
        for signal in signals {
            decision
                .verdicts
                .extend(self.repeats(host, device, &mut book, &mut counts, signal));
            let verdicts = self.one(host, device, (&mut book, &mut bare), signal)?;
            decision.verdicts.extend(verdicts);
        }
        decision.verdicts = newest(decision.verdicts, signals);
        decision.attrs.extend(bare::provisional(&decision.verdicts));
        decision.wakes.extend(double_bit::wake(waited, &book));
        decision
            .wakes
            .extend(bare::wake(waited_bare, signals, &book));
        counts.close(host)?;
        bare.close(host)?;
        book.close(host)?;
        Ok(decision)
    }
}

impl XidPolicy {
    /// Counts an XID where a window asks for it.
    fn repeats(
        &self,
        host: &mut dyn Host,
        device: &Device,
        book: &mut Book<'_>,
        counts: &mut Counts,
        signal: &Signal,
    ) -> Option<Verdict> {
        let code = signal.code.filter(|_| signal.kind == kind::XID)?;
        let window = self.config.windows.get(&code)?;
        let finding = counts.take(host, device, code, window, signal)?;
        Some(book.add(REPEATS, &judge::subject(code), &finding, signal))
    }

    fn one(
        &self,
        host: &mut dyn Host,
        device: &Device,
        (book, bare): (&mut Book<'_>, &mut Bare<'_>),
        signal: &Signal,
    ) -> Result<Vec<Verdict>, String> {
        match signal.kind.as_str() {
            kind::XID => self.xid(host, device, (book, bare), signal),
            kind::SXID => Ok(sxid(book, signal).into_iter().collect()),
            kind::RECOVERY_ACTION => Ok(vec![recovery::judge(host, signal)]),
            kind::GPU_FOUND => Ok(recovery::on_found(host, signal).into_iter().collect()),
            kind::TIMER if timer_name(signal) == Some(double_bit::WAKE) => {
                Ok(double_bit::on_wake(book, signal))
            }
            kind::TIMER if timer_name(signal) == Some(bare::WAKE) => Ok(bare.on_wake(book, signal)),
            _ => Ok(Vec::new()),
        }
    }

    fn xid(
        &self,
        host: &mut dyn Host,
        device: &Device,
        (book, bare): (&mut Book<'_>, &mut Bare<'_>),
        signal: &Signal,
    ) -> Result<Vec<Verdict>, String> {
        let Some(code) = signal.code else {
            return Ok(Vec::new());
        };
        let mut verdicts = double_bit::on_other(host, book, signal)?;
        if !judge::is_plain(&self.config, code) {
            match code {
                double_bit::CODE => {
                    verdicts.extend(double_bit::on_error(host, book, signal));
                    return Ok(verdicts);
                }
                154 => return Ok(vec![recovery::judge(host, signal)]),
                _ => {}
            }
        }
        if bare::concerns(code) {
            verdicts.extend(bare.on_error(book, code, signal));
        } else if let Some(finding) = judge::judge(&self.config, &device.driver, code, signal) {
            verdicts.push(book.add(
                finding.xid_condition(),
                &judge::subject(code),
                &finding,
                signal,
            ));
        }
        Ok(verdicts)
    }
}

/// A line of detail says nothing by itself: the first line of the event has judged it.
fn sxid(book: &mut Book<'_>, signal: &Signal) -> Option<Verdict> {
    let finding = sxid::judge(signal)?;
    let code = signal.code.unwrap_or_default();
    Some(book.add(NVSWITCH, &format!("SXid {code}"), &finding, signal))
}

device_policy_sdk::export!(XidPolicy);
