//! Signals that wait, and those that are with the policies.

use std::sync::Arc;

use device_api_core::clock::BootTime;
use device_api_core::device::DeviceInfo;
use device_api_core::ids::SignalSeq;
use device_api_core::policy::Outcome;
use device_api_core::signal::{Signal, SignalKind};

use crate::alike::is_same;

/// A signal that waits to be judged, or is being judged.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) signal: Signal,
    /// The newest signal that was folded into it.
    pub(crate) through: SignalSeq,
    /// Bit N: policy N is asked.
    pub(crate) recipients: u32,
    /// When the fallback is written, for signals that hold readers.
    pub(crate) deadline: Option<BootTime>,
    /// To be judged alone: its batch failed, or it failed before.
    pub(crate) alone: bool,
    /// Its floor was taken into account: once, however often it is judged.
    pub(crate) is_floored: bool,
}

impl Pending {
    /// Whether `other` tells of the same thing, so that one may stand for both.
    pub(crate) fn is_repeat(&self, other: &Self) -> bool {
        !self.alone && !other.alone && is_same(&self.signal, &other.signal)
    }

    /// It is asked about again by itself, after it failed: nobody waits for it, and no log tells of it
    /// a second time.
    pub(crate) fn is_asked_again(&self, policy: usize) -> bool {
        self.alone && self.deadline.is_none() && self.recipients & (1 << policy) != 0
    }

    pub(crate) fn is_first_asked(&self, policy: usize) -> bool {
        !self.alone && self.recipients & (1 << policy) != 0
    }

    /// Takes a repeat in. Of a reading the newest value counts.
    pub(crate) fn fold(&mut self, repeat: Self) {
        self.signal.repeats = self.signal.repeats.saturating_add(repeat.signal.repeats);
        self.through = self.through.max(repeat.through);
        self.recipients |= repeat.recipients;
        self.deadline = self.deadline.or(repeat.deadline);
        self.signal.samples = repeat.signal.samples;
        if self.signal.kind == SignalKind::Reading {
            self.signal.attrs = repeat.signal.attrs;
            self.signal.evidence = repeat.signal.evidence;
        }
        for source in repeat.signal.sources {
            if !self.signal.sources.contains(&source) {
                self.signal.sources.push(source);
            }
        }
    }
}

/// A batch that the policies have.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) id: u64,
    pub(crate) batch: Vec<Pending>,
    /// Those of the batch, each with the samples that it is judged on.
    pub(crate) signals: Arc<[Signal]>,
    pub(crate) device: Arc<DeviceInfo>,
    /// Bit N: policy N has not answered yet.
    pub(crate) outstanding: u32,
    pub(crate) outcomes: Vec<(usize, Outcome)>,
    pub(crate) started: BootTime,
}

impl Flight {
    /// What one policy is to judge.
    pub(crate) fn signals_for(&self, at: usize) -> Arc<[Signal]> {
        let is_asked = |pending: &Pending| pending.recipients & (1 << at) != 0;
        if self.batch.iter().all(is_asked) {
            return self.signals.clone();
        }
        let asked = self.batch.iter().zip(&*self.signals);
        let asked = asked.filter(|(pending, _)| is_asked(pending));
        asked.map(|(_, signal)| signal.clone()).collect()
    }
}
