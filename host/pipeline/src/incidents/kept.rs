//! Incidents over a restart: one that is open goes on, with its number, as long as a condition of it stands or its
//! fault is seen again in time; one that is closed is listed on.
//!
//! What is new in one is written with the decision that made it so, hence with the conditions that name it. That
//! it was seen again is written now and then, and at the end: a daemon that is killed loses the newest counts alone.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::Condition;
use device_api_core::durable::{Change, IncidentMemory};
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::incident::IncidentState;
use device_api_core::limits;

use super::Incidents;
use super::known::{Seen, key};
use super::record::Record;

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Save {
    /// What is new.
    News,
    /// Counts and times too.
    All,
}

impl Incidents {
    /// What the store lacks, as far as it is to be written now.
    pub(crate) fn unsaved(&mut self, save: Save) -> Vec<Change> {
        let news = take(&mut self.news);
        let mut changes: Vec<Change> = match save {
            Save::News => {
                let records = news.into_iter().filter_map(|id| {
                    let record = self.open.get_mut(&id);
                    record
                        .or_else(|| find(&mut self.closed, id))?
                        .take_unsaved(save)
                });
                records.collect()
            }
            Save::All => {
                let all = self.open.values_mut().chain(&mut self.closed);
                all.filter_map(|record| record.take_unsaved(save)).collect()
            }
        };
        changes.extend(take(&mut self.gone).into_iter().map(Change::IncidentGone));
        changes
    }

    /// Takes up what an earlier run has left, and says which was the newest signal of any. `conditions`: those
    /// that stand of a device.
    pub(crate) fn take_up(
        &mut self,
        mut left: Vec<IncidentMemory>,
        conditions: impl Fn(&DeviceUuid) -> Arc<[Condition]>,
    ) -> SignalSeq {
        let newest = left.iter().map(|memory| memory.last).max();
        // Where they are too many the newest are kept.
        left.sort_by_key(|memory| (closed_at(memory), memory.incident.id));
        let open = left.iter().filter(|memory| closed_at(memory).is_none());
        let too_many = open.count().saturating_sub(limits::INCIDENTS_MAX);
        let dropped = left.drain(..too_many).map(|memory| memory.incident.id);
        self.gone.extend(dropped);
        for memory in left {
            self.go_on_after(memory.incident.id);
            let mut record = Record::kept(memory);
            if record.is_open() {
                record.stand_by(&conditions(record.device()));
                if record.has_news() {
                    self.news.push(record.id());
                }
                self.put_open(record);
            } else {
                self.put_closed(record);
            }
        }
        newest.unwrap_or_default()
    }

    fn put_open(&mut self, record: Record) {
        let id = record.id();
        let known = self.known.entry(record.device().clone()).or_default();
        // What is no fault is known by the condition that it is behind.
        if record.is_fault() {
            let place = (&[][..], record.instance());
            let last = record.last().boot;
            known.put(key(record.kind(), record.code(), place), Seen { id, last });
        }
        if record.stands() {
            known.raisers.push(id);
        }
        self.open.insert(id, record);
    }

    /// One that was over, and goes on.
    pub(super) fn take_closed(&mut self, id: IncidentId) -> Option<Record> {
        let at = self.closed.iter().rposition(|record| record.id() == id)?;
        self.closed.remove(at)
    }

    /// Puts it with those that are over; the first of them goes.
    pub(super) fn put_closed(&mut self, record: Record) {
        if self.closed.len() >= limits::INCIDENTS_CLOSED_MAX
            && let Some(oldest) = self.closed.pop_front()
            && oldest.is_kept()
        {
            self.gone.push(oldest.id());
        }
        if record.has_news() {
            self.news.push(record.id());
        }
        self.closed.push_back(record);
    }
}

/// The last of those that are over is most often meant.
fn find(closed: &mut VecDeque<Record>, id: IncidentId) -> Option<&mut Record> {
    closed.iter_mut().rev().find(|record| record.id() == id)
}

fn closed_at(memory: &IncidentMemory) -> Option<WallTime> {
    match memory.incident.state {
        IncidentState::Open => None,
        IncidentState::Closed { at, .. } => Some(at),
    }
}
