//! The cache as a few maps: what it holds, and what each operation makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use device_api_core::verdict::Judgement;
use device_api_core::watch::EventType;

/// Number of a device, of an object's name, of a condition type, of a provider.
pub(crate) type Device = u8;
pub(crate) type Name = u8;
pub(crate) type Type = u8;
pub(crate) type Provider = u8;

/// Whose a condition is; `None` is the host's.
pub(crate) type Owner = Option<Provider>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Said {
    pub(crate) owner: Owner,
    pub(crate) state: Judgement,
    pub(crate) reason: String,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Which of several descriptions NVML gave; 0 is none.
    pub(crate) info: u8,
    pub(crate) said: BTreeMap<Type, Said>,
    pub(crate) is_deleted: bool,
    /// Nobody has spoken of it since the start.
    pub(crate) unobserved: bool,
    /// Over which connection a type was last written.
    written_over: BTreeMap<Type, u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) duration: Duration,
    pub(crate) ends: Duration,
}

/// What an operation does to the objects, one version each.
pub(crate) type Changes = Vec<(EventType, Name)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotFound,
    AlreadyExists,
    Conflict,
    Invalid,
    Forbidden,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) devices: BTreeMap<Device, Record>,
    /// Which device each object shows, and its version.
    pub(crate) objects: BTreeMap<Name, (Device, u64)>,
    pub(crate) version: u64,
    pub(crate) claims: BTreeMap<Type, Provider>,
    pub(crate) leases: BTreeMap<Provider, Lease>,
    pub(crate) now: Duration,
}

/// A provider's write of one or several types.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) provider: Provider,
    pub(crate) connection: u64,
    pub(crate) name: Name,
    pub(crate) expected: Option<u64>,
    pub(crate) types: Vec<(Type, Judgement, String)>,
    /// Others' types are left alone instead of refused; with a version, one's own are removed.
    pub(crate) lenient: bool,
}

impl Model {
    /// Gives the changes their versions.
    fn publish(&mut self, changes: Changes) -> Changes {
        for (type_, name) in &changes {
            self.version += 1;
            if *type_ == EventType::Deleted {
                self.objects.remove(name);
            } else if let Some((_, version)) = self.objects.get_mut(name) {
                *version = self.version;
            }
        }
        changes
    }

    /// All objects of a device changed, in the order of their names.
    fn modified(&mut self, device: Device) -> Changes {
        let shows = |(_, (of, _)): &(&Name, &(Device, u64))| *of == device;
        let names = self.objects.iter().filter(shows);
        let changes = names
            .map(|(name, _)| (EventType::Modified, *name))
            .collect();
        self.publish(changes)
    }

    fn shows(&self, device: Device) -> bool {
        self.objects.values().any(|(of, _)| *of == device)
    }

    fn add(&mut self, name: Name, device: Device) -> Changes {
        self.devices.entry(device).or_default().is_deleted = false;
        self.objects.insert(name, (device, 0));
        self.publish(vec![(EventType::Added, name)])
    }

    /// NVML sees a device; its own object bears its number.
    pub(crate) fn upsert(&mut self, device: Device, info: u8) -> Changes {
        let record = self.devices.entry(device).or_default();
        let (changed, is_deleted) = (record.info != info, record.is_deleted);
        record.info = info;
        let mut changes = if changed {
            self.modified(device)
        } else {
            Vec::new()
        };
        // Unless a client gave its name to another.
        if !is_deleted && !self.shows(device) && !self.objects.contains_key(&device) {
            changes.extend(self.add(device, device));
        }
        changes
    }

    pub(crate) fn create(
        &mut self,
        name: Name,
        device: Device,
        exclusive: bool,
    ) -> Result<Changes, Refusal> {
        match self.objects.get(&name) {
            Some(_) if exclusive => Err(Refusal::AlreadyExists),
            Some((of, _)) if *of != device => Err(Refusal::Invalid),
            Some(_) => Ok(Vec::new()),
            None => Ok(self.add(name, device)),
        }
    }

    pub(crate) fn delete(&mut self, name: Name, expected: Option<u64>) -> Result<Changes, Refusal> {
        let device = self.check(name, expected)?;
        let changes = self.publish(vec![(EventType::Deleted, name)]);
        let is_deleted = !self.shows(device);
        self.devices.entry(device).or_default().is_deleted = is_deleted;
        Ok(changes)
    }

    fn check(&self, name: Name, expected: Option<u64>) -> Result<Device, Refusal> {
        let (device, version) = self.objects.get(&name).ok_or(Refusal::NotFound)?;
        if expected.is_some_and(|expected| expected != *version) {
            return Err(Refusal::Conflict);
        }
        Ok(*device)
    }

    /// Changes what is said of a device; where that changes nothing, nobody hears of it.
    fn say(&mut self, device: Device, change: impl FnOnce(&mut BTreeMap<Type, Said>)) -> Changes {
        self.tell(device, |record| change(&mut record.said))
    }

    fn tell(&mut self, device: Device, change: impl FnOnce(&mut Record)) -> Changes {
        let record = self.devices.entry(device).or_default();
        let before = (record.said.clone(), record.unobserved);
        change(record);
        if (&record.said, record.unobserved) == (&before.0, before.1) {
            return Vec::new();
        }
        self.modified(device)
    }

    /// The pipeline's word.
    pub(crate) fn judge(
        &mut self,
        device: Device,
        type_: Type,
        state: Judgement,
        reason: &str,
    ) -> Changes {
        let said = Said {
            owner: None,
            state,
            reason: reason.to_owned(),
        };
        self.say(device, |all| {
            all.insert(type_, said);
        })
    }

    /// `host_owned`: the types that no provider may write.
    pub(crate) fn write(&mut self, write: &Write, host_owned: &[Type]) -> Result<Changes, Refusal> {
        let device = self.check(write.name, write.expected)?;
        let is_mine = |model: &Self, type_: Type| {
            !host_owned.contains(&type_)
                && model
                    .claims
                    .get(&type_)
                    .is_none_or(|p| *p == write.provider)
        };
        let (mine, others): (Vec<_>, Vec<_>) = write
            .types
            .iter()
            .partition(|(type_, ..)| is_mine(self, *type_));
        if !others.is_empty() && !write.lenient {
            return Err(Refusal::Forbidden);
        }
        let written_over = self.devices.entry(device).or_default().written_over.clone();
        let changes = self.tell(device, |record| {
            record.unobserved = false;
            let said = &mut record.said;
            if write.lenient && write.expected.is_some() {
                said.retain(|type_, old| {
                    old.owner != Some(write.provider)
                        || written_over.get(type_) != Some(&write.connection)
                        || write.types.iter().any(|(new, ..)| new == type_)
                });
            }
            for (type_, state, reason) in &mine {
                let new = Said {
                    owner: Some(write.provider),
                    state: *state,
                    reason: reason.clone(),
                };
                said.insert(*type_, new);
            }
        });
        let record = self.devices.entry(device).or_default();
        for (type_, ..) in mine {
            self.claims.insert(*type_, write.provider);
            record.written_over.insert(*type_, write.connection);
        }
        Ok(changes)
    }

    /// What a provider said is doubted (P2): what was fine is unknown, problems stay.
    fn lose(&mut self, provider: Provider) -> Changes {
        let devices: Vec<Device> = self.devices.keys().copied().collect();
        let lose = |said: &mut BTreeMap<Type, Said>| {
            for old in said.values_mut().filter(|s| s.owner == Some(provider)) {
                if old.state == Judgement::Ok {
                    old.state = Judgement::Unknown;
                }
                "ProviderLost".clone_into(&mut old.reason);
            }
        };
        devices
            .into_iter()
            .flat_map(|device| self.say(device, lose))
            .collect()
    }

    pub(crate) fn register(&mut self, provider: Provider, duration: Duration) {
        let ends = self.now + duration;
        self.leases.insert(provider, Lease { duration, ends });
    }

    /// Time passes, and leases run out with it.
    pub(crate) fn pass(&mut self, time: Duration) -> Changes {
        self.now += time;
        let now = self.now;
        let lost: Vec<Provider> = self
            .leases
            .extract_if(.., |_, lease| lease.ends <= now)
            .map(|(provider, _)| provider)
            .collect();
        lost.into_iter()
            .flat_map(|provider| self.lose(provider))
            .collect()
    }

    pub(crate) fn forget(&mut self, provider: Provider) -> Result<Changes, Refusal> {
        let types = self.claims.extract_if(.., |_, owner| *owner == provider);
        let owned = types.count() > 0;
        if self.leases.remove(&provider).is_none() && !owned {
            return Err(Refusal::Invalid);
        }
        let devices: Vec<Device> = self.devices.keys().copied().collect();
        Ok(devices
            .into_iter()
            .flat_map(|device| {
                self.say(device, |said| {
                    said.retain(|_, said| said.owner != Some(provider));
                })
            })
            .collect())
    }

    /// A kill and a new run, whose versions begin after `base` (C5, C7).
    pub(crate) fn restart(&mut self, base: u64, rebooted: bool, clears_at_reboot: &[Type]) {
        for record in self.devices.values_mut() {
            record.written_over.clear();
            record.unobserved = true;
            record.said.retain(|type_, said| match said.state {
                Judgement::Problem => {
                    !(rebooted && said.owner.is_none() && clears_at_reboot.contains(type_))
                }
                Judgement::Unknown => true,
                Judgement::Ok => said.owner.is_some(),
            });
            for said in record.said.values_mut() {
                if said.state == Judgement::Ok {
                    said.state = Judgement::Unknown;
                    "Restarted".clone_into(&mut said.reason);
                }
            }
        }
        for lease in self.leases.values_mut() {
            lease.ends = self.now + lease.duration;
        }
        self.version = base + 1;
        // In the order in which they were.
        let mut objects: Vec<(u64, Name)> = self
            .objects
            .iter()
            .map(|(name, (_, version))| (*version, *name))
            .collect();
        objects.sort_unstable();
        let changes = objects
            .into_iter()
            .map(|(_, name)| (EventType::Modified, name))
            .collect();
        self.publish(changes);
    }
}
