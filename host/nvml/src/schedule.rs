//! What the polling thread does when: each class of readings, and the inventory, on a schedule of its own.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::queries::Class;

/// A shorter interval would leave the driver's locks to nobody else.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// What is done on a schedule of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Read(Class),
    Inventory,
}

/// When each task is due next.
#[derive(Debug)]
pub(crate) struct Schedule([(Task, Duration, Instant); 5]);

impl Schedule {
    /// All of them were just done.
    pub(crate) fn new(config: &Config, now: Instant) -> Self {
        let task = |task, interval: Duration| {
            let interval = interval.max(INTERVAL_MIN);
            (task, interval, now + interval)
        };
        Self([
            task(Task::Read(Class::Sensors), config.poll_interval),
            task(Task::Read(Class::Faults), config.fault_interval),
            task(Task::Read(Class::Counters), config.counter_interval),
            task(Task::Read(Class::Limits), config.limit_interval),
            task(Task::Inventory, config.inventory_interval),
        ])
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(.., at)| *at).min()
    }

    /// A task is due now, whenever it was.
    pub(crate) fn hasten(&mut self, task: Task, now: Instant) {
        let its = self.0.iter_mut().filter(|(known, ..)| *known == task);
        its.for_each(|(.., at)| *at = now);
    }

    /// The tasks that are due, each set for its next time. One that is late is not made up for.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Task> {
        let due = self.0.iter_mut().filter(|(.., at)| *at <= now);
        due.map(|(task, interval, at)| {
            *at = now + *interval;
            *task
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_is_due_on_its_own_schedule_and_what_is_late_is_done_once() {
        let config = Config {
            poll_interval: Duration::from_secs(1),
            fault_interval: Duration::from_secs(2),
            counter_interval: Duration::from_secs(5),
            limit_interval: Duration::from_secs(60),
            inventory_interval: Duration::from_secs(10),
            ..Config::default()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut schedule = Schedule::new(&config, start);
        assert_eq!(schedule.next(), Some(at(1)));
        assert_eq!(schedule.take_due(start), []);
        assert_eq!(schedule.take_due(at(1)), [Task::Read(Class::Sensors)]);
        assert_eq!(
            schedule.take_due(at(2)),
            [Task::Read(Class::Sensors), Task::Read(Class::Faults)]
        );
        // It hung for a minute.
        assert_eq!(schedule.take_due(at(62)).len(), 5);
        assert_eq!(schedule.take_due(at(62)), []);
        assert_eq!(schedule.next(), Some(at(63)));
    }
}
