//! The thread `nvml-poll`: takes the inventory, then one batch of readings for each GPU and round; who is
//! lost, who is back, and who was put in.
//!
//! It may hang in any call. Then the watchdog has another thread do all this from where this one stopped,
//! with the GPU that hangs left alone; this one leaves when its call comes back.

mod listen;

use std::sync::Arc;
use std::time::Instant;

use device_api_core::ids::DeviceUuid;
use device_api_core::ports::NvmlStatus;
use device_api_core::signal::Samples;
use nvml_wrapper::Device;

use crate::answering::Ended;
use crate::call::{CallFailed, Meaning};
use crate::counters::Counters;
use crate::devices::Known;
use crate::inventory::{self, Found};
use crate::queries::Class;
use crate::raw::DeviceHandle;
use crate::readings::{Answered, Standing, probe, sample};
use crate::schedule::{Schedule, Task};
use crate::session::Session;
use crate::watch::{Asked, Role, asking};

#[derive(Debug)]
pub(crate) struct Poll {
    session: Session,
    number: u64,
}

impl Poll {
    pub(crate) fn new(session: Session, number: u64) -> Self {
        Self { session, number }
    }

    fn is_current(&self) -> bool {
        self.session.is_current(Role::Poll, self.number)
    }

    /// Runs until the session ends, or another took over.
    pub(crate) fn run(self) {
        if let Err(failed) = self.work() {
            self.session.driver_gone(&failed);
        }
    }

    /// # Errors
    /// The driver is gone.
    fn work(&self) -> Result<(), CallFailed> {
        let context = &self.session.context;
        let took_over = self.session.progress().is_ready();
        if !took_over {
            self.begin()?;
        }
        let mut schedule = Schedule::new(&context.config, Instant::now());
        if took_over {
            // Of whom the one before had not come to, what is known is old already.
            for class in Class::ALL {
                schedule.hasten(Task::Read(class), Instant::now());
            }
        }
        let role = (Role::Poll, self.number);
        while let Some(next) = schedule.next() {
            let pause = next.saturating_duration_since(Instant::now());
            if !context.control.pause(self.session.id, role, pause) {
                break;
            }
            let now = Instant::now();
            if std::mem::take(&mut self.session.progress().look) {
                schedule.hasten(Task::Inventory, now);
            }
            self.round(&schedule.take_due(now))?;
            if !self.is_current() {
                break;
            }
            self.report_ready();
            Counters::add(&context.counters.polls);
        }
        Ok(())
    }

    /// Lists the GPUs, registers for their events, and tells of them: in this order, so that what happens
    /// after the snapshot is queued.
    fn begin(&self) -> Result<(), CallFailed> {
        self.ask_the_unlisted()?;
        self.listen();
        for known in self.session.context.devices.all() {
            self.visit(&known, &[])?;
        }
        if self.is_current() {
            self.report_absent();
            self.doubt_the_absent();
            self.report_ready();
        }
        Ok(())
    }

    /// GPUs of an earlier session, or an earlier run, that are not in this one's inventory: once it is complete.
    fn report_absent(&self) {
        let watch = &self.session.context.watch;
        if self.session.progress().accounted {
            return;
        }
        let unlisted = self.session.progress().unlisted.clone();
        if unlisted
            .iter()
            .any(|index| watch.hung_on(&Asked::Index(*index)).is_some())
        {
            // It may be that one: it hangs, and can't tell its name.
            return;
        }
        if !unlisted.is_empty() && !self.session.progress().is_ready() {
            // It may be that one: it is asked once more, as it may have been a passing error.
            return;
        }
        for known in self.session.context.devices.all() {
            if known.handle.is_none() {
                let evidence = "NVML was opened again, and no GPU there answers to this UUID";
                self.session.lost(&known.uuid, evidence.to_owned(), None);
            }
        }
        self.session.report_missing();
        self.session.progress().accounted = true;
    }

    /// Nobody can say how those are that were here before, and have not told their name since: one may be the one that
    /// hangs.
    fn doubt_the_absent(&self) {
        let absent: Vec<_> = self
            .session
            .context
            .devices
            .all()
            .into_iter()
            .filter(|known| known.handle.is_none() && !known.lost)
            .map(|known| known.uuid)
            .collect();
        self.session.context.unsure(&absent);
    }

    /// NVML is in use: told once, and again when it shows another number of GPUs, as after one that hung at the
    /// start came back; and to whoever waits for it.
    fn report_ready(&self) {
        let context = &self.session.context;
        let library = &self.session.library;
        let driver = self.session.driver.to_string();
        let all = context.devices.all();
        let gpus = all.iter().filter(|known| known.handle.is_some()).count();
        let simulated = library.simulated;
        let before = self.session.progress().told.replace(gpus);
        match before {
            None => {
                tracing::info!(library = %library.path, %driver, gpus, simulated, "NVML is in use");
            }
            Some(before) if before != gpus => {
                tracing::info!(gpus, before, "NVML shows another number of GPUs");
            }
            Some(_) => {}
        }
        let status = NvmlStatus::Ready {
            library: library.path.clone(),
            driver,
            gpus,
            simulated,
        };
        if before != Some(gpus) {
            context.observer.nvml_status(status.clone());
        }
        for answer in context.control.all_attaching() {
            answer.give(status.clone());
        }
    }

    /// # Errors
    /// The driver is gone.
    fn round(&self, due: &[Task]) -> Result<(), CallFailed> {
        let classes: Vec<Class> = due
            .iter()
            .filter_map(|task| match task {
                Task::Read(class) => Some(*class),
                Task::Inventory => None,
            })
            .collect();
        for known in self.session.context.devices.all() {
            self.visit(&known, &classes)?;
        }
        if due.contains(&Task::Inventory) {
            self.look_for_changes()?;
        }
        self.ask_the_unlisted()?;
        self.listen();
        if self.is_current() {
            self.report_absent();
        }
        Ok(())
    }

    /// Whatever there is to do about a GPU just now.
    fn visit(&self, known: &Known, classes: &[Class]) -> Result<(), CallFailed> {
        if !self.is_current() {
            return Ok(());
        }
        if let Some(hung) = self.session.hangs(&known.uuid) {
            self.session
                .context
                .stand(&known.uuid, Standing::Hangs(&hung));
            return Ok(());
        }
        asking(Asked::Gpu(known.uuid.clone()), || {
            match known.handle.filter(|_| !known.lost) {
                Some(handle) if known.announced => {
                    self.read(&known.uuid, &self.session.library.device(handle), classes)
                }
                Some(handle) => {
                    let announced = self
                        .session
                        .announce(&known.uuid, handle, || self.is_current());
                    self.or_lost(&known.uuid, announced)
                }
                // At the start it was just asked for, by its index.
                None if self.session.progress().is_ready() => self.look_again(known),
                None => Ok(()),
            }
        })
    }

    /// Passes on that the driver is gone; anything else was about the GPU.
    fn or_lost(&self, uuid: &DeviceUuid, result: Result<(), CallFailed>) -> Result<(), CallFailed> {
        match result {
            Err(failed) if failed.meaning == Meaning::DriverGone => Err(failed),
            Err(failed) if failed.meaning == Meaning::Lost => {
                if self.is_current() {
                    self.session.lost(uuid, failed.to_string(), None);
                }
                Ok(())
            }
            Err(failed) => {
                tracing::debug!(gpu = %uuid, "asked again later: {failed}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn read(
        &self,
        uuid: &DeviceUuid,
        device: &Device<'_>,
        classes: &[Class],
    ) -> Result<(), CallFailed> {
        if classes.is_empty() {
            return Ok(());
        }
        let context = &self.session.context;
        let before = context.devices.samples(uuid);
        // Of what it tells first nothing is to be old.
        let errs = context.devices.errs(uuid);
        let classes: &[Class] = if errs { &Class::ALL } else { classes };
        let mut batch = sample(device, classes, &before);
        // It may have hung until another took over; then it has nothing to say.
        if !self.is_current() {
            return Ok(());
        }
        let ended = self.session.weigh(uuid, &mut batch, false);
        self.session.judge_reset(uuid, &batch);
        self.session.judge(uuid, &batch);
        context.sink.sampled(uuid, Arc::clone(&batch.samples));
        if ended == Ended::Muteness && batch.cut_short.is_none() {
            let handle = DeviceHandle::of(device);
            let announced = self.session.announce(uuid, handle, || self.is_current());
            return self.or_lost(uuid, announced);
        }
        let is_answered = !matches!(batch.answer, Answered::Errors(_));
        if is_answered && batch.cut_short.is_none() && context.devices.sure(uuid) {
            context.sink.probed(uuid);
        }
        match batch.cut_short {
            Some(failed) if failed.meaning == Meaning::DriverGone => Err(failed),
            _ => Ok(()),
        }
    }

    /// Whether a lost GPU is back. NVML may have given it another handle.
    fn look_again(&self, known: &Known) -> Result<(), CallFailed> {
        let library = &self.session.library;
        let devices = &self.session.context.devices;
        let old = known.handle.map(|handle| library.device(handle));
        let found = match old {
            Some(device) if probe(&device).is_ok() => {
                inventory::describe(library, &device, devices)
            }
            _ => inventory::by_uuid(library, &known.uuid)
                .and_then(|device| probe(&device).map(|()| device))
                .and_then(|device| inventory::describe(library, &device, devices)),
        };
        match found {
            Ok(found) => self.is_back(&found),
            Err(failed) if failed.meaning == Meaning::DriverGone => return Err(failed),
            Err(failed) => tracing::trace!(gpu = %known.uuid, "still lost: {failed}"),
        }
        Ok(())
    }

    fn is_back(&self, found: &Found) {
        if !self.is_current() {
            return;
        }
        let uuid = &found.info.uuid;
        tracing::info!(gpu = %uuid, "GPU answers again");
        self.session.found(found);
        let announced = self
            .session
            .announce(uuid, found.handle, || self.is_current());
        if let Err(failed) = announced {
            tracing::debug!(gpu = %uuid, "gone again: {failed}");
        }
    }

    /// Asks those that have not told their UUID yet.
    fn ask_the_unlisted(&self) -> Result<(), CallFailed> {
        let unlisted = self.session.progress().unlisted.clone();
        for index in unlisted {
            let asked = Asked::Index(index);
            if !self.is_current() {
                break;
            }
            if self.session.context.watch.hung_on(&asked).is_some() {
                continue;
            }
            let devices = &self.session.context.devices;
            let found = asking(asked, || {
                inventory::at_index(&self.session.library, index, devices)
            });
            if !self.is_current() {
                break;
            }
            match found {
                Ok(found) => {
                    self.session.progress().unlisted.remove(&index);
                    self.take_in(&found)?;
                }
                Err(failed) if failed.meaning == Meaning::DriverGone => return Err(failed),
                Err(failed) if !self.session.progress().is_ready() => {
                    tracing::warn!(index, "GPU can't be listed, will be asked again: {failed}");
                }
                Err(failed) => tracing::trace!(index, "still no GPU: {failed}"),
            }
        }
        Ok(())
    }

    /// A GPU that told its UUID; at the start all are listed before they are told of.
    fn take_in(&self, found: &Found) -> Result<(), CallFailed> {
        let uuid = &found.info.uuid;
        let devices = &self.session.context.devices;
        let is_there = devices
            .all()
            .iter()
            .any(|known| known.uuid == *uuid && known.announced && !known.lost);
        if is_there {
            return Ok(());
        }
        self.session.found(found);
        if !self.session.progress().is_ready() {
            return Ok(());
        }
        let announced = asking(Asked::Gpu(uuid.clone()), || {
            self.session
                .announce(uuid, found.handle, || self.is_current())
        });
        self.or_lost(uuid, announced)
    }

    /// What changes without a word: MIG instances, the fabric, a GPU that was put in another's place.
    fn look_for_changes(&self) -> Result<(), CallFailed> {
        let library = &self.session.library;
        for (uuid, handle, _) in self.session.live() {
            if !self.is_current() {
                return Ok(());
            }
            let found = asking(Asked::Gpu(uuid.clone()), || {
                let device = library.device(handle);
                let devices = &self.session.context.devices;
                let mut found = inventory::describe(library, &device, devices)?;
                found.info.hardware.peers = self.session.peers(&uuid, &device)?;
                Ok(found)
            });
            match found {
                Ok(found) if self.is_current() => self.compare(&uuid, found),
                Ok(_) => return Ok(()),
                Err(failed) => self.or_lost(&uuid, Err(failed))?,
            }
        }
        if self.session.context.watch.hung_on(&Asked::Nvml).is_some() {
            return Ok(());
        }
        let count = inventory::count(library);
        let known = self.session.context.devices.uuids();
        for index in 0..count.unwrap_or_default() {
            if !self.is_current() {
                return Ok(());
            }
            let at_index = self.session.context.devices.at_index(index);
            let asked = at_index.map_or(Asked::Index(index), Asked::Gpu);
            if self.session.context.watch.hung_on(&asked).is_some() {
                continue;
            }
            let uuid = asking(asked, || inventory::uuid_at_index(library, index));
            if uuid.is_ok_and(|uuid| !known.contains(&uuid)) {
                self.session.progress().unlisted.insert(index);
            }
        }
        Ok(())
    }

    /// What NVML says of a GPU now against what it said before.
    fn compare(&self, uuid: &DeviceUuid, found: Found) {
        let context = &self.session.context;
        if found.info.uuid != *uuid {
            return self.is_back(&found);
        }
        if context.devices.update(&found.info) {
            tracing::info!(gpu = %uuid, "what NVML states of the GPU has changed");
            let samples: Arc<Samples> = context.devices.samples(uuid);
            context.sink.device_found(found.info, samples);
        }
    }
}
