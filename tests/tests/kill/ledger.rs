//! What was told before a kill, and what must therefore hold after it:
//! - a write that was answered is there, or a later one of the same writer that was not answered;
//! - a version stands for one content, in whichever run it was seen, and versions never go back;
//! - what was read as a problem is not fine afterwards; what was fine is Unknown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use device_api_proto::native::{self, ConditionStatus, Health, Severity, owner};
use device_api_tests::history::{Names, Shown};
use device_api_tests::linear::{Key, Version};
use device_api_tests::{condition_of, health_of};

/// One write of a condition: its number is its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) is_problem: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acknowledged: u64,
    pub(crate) unanswered: u64,
    /// Of those, what was found to have been written all the same.
    pub(crate) survived: u64,
    pub(crate) versions: usize,
    pub(crate) resumed: u64,
    pub(crate) refused: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unanswered += other.unanswered;
        self.survived += other.survived;
        self.versions += other.versions;
        self.resumed += other.resumed;
        self.refused += other.refused;
    }
}

/// What a writer was told of one condition, or of one object's being there (then `is_problem` says
/// that it is).
#[derive(Clone, Debug, Default)]
struct Writes {
    answered: Option<Write>,
    /// After the last that was answered.
    unanswered: Vec<Write>,
}

#[derive(Debug, Default)]
struct Book {
    contents: HashMap<Version, (Key, u64)>,
    newest: Version,
    written: BTreeMap<(String, String), Writes>,
    objects: BTreeMap<String, Writes>,
    /// GPUs that the kernel log says are broken.
    broken: BTreeSet<String>,
    /// Those of them that somebody read as Unhealthy, and the first version in which one did.
    unhealthy: BTreeMap<String, Version>,
    /// What the watcher was told last, and up to which version.
    watched: (Version, BTreeMap<String, Version>),
    counts: Counts,
}

/// Whether it is Unhealthy for what the kernel log said, and not for the word of a writer who takes it back.
pub(crate) fn is_broken(gpu: &native::Gpu) -> bool {
    let conditions = gpu.status.iter().flat_map(|status| &status.conditions);
    let is_the_daemons = |condition: &native::Condition| {
        let owned = condition.owner.as_ref();
        owned.is_some_and(|owned| owned.kind() != owner::Kind::Provider)
    };
    let mut fatal = conditions.filter(|condition| {
        // It sums up the others.
        condition.r#type != "Ready" && condition.severity() == Severity::Fatal
    });
    health_of(gpu) == Health::Unhealthy && fatal.any(is_the_daemons)
}

/// Shared by the clients of one daemon, over all its runs.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) names: Arc<Names>,
    pub(crate) gpus: Arc<[String]>,
    book: Arc<Mutex<Book>>,
}

impl Ledger {
    pub(crate) fn new(names: Arc<Names>, gpus: Vec<String>) -> Self {
        Self {
            names,
            gpus: gpus.into(),
            book: Arc::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counts(&self) -> Counts {
        let book = self.book();
        Counts {
            versions: book.contents.len(),
            ..book.counts
        }
    }

    pub(crate) fn broke(&self, gpu: &str) {
        self.book().broken.insert(gpu.to_owned());
    }

    pub(crate) fn broken(&self) -> Vec<String> {
        self.book().broken.iter().cloned().collect()
    }

    /// A version that was seen in an earlier run, if there is one.
    pub(crate) fn newest(&self) -> Version {
        self.book().newest
    }

    pub(crate) fn begins(&self, object: &str, type_: &str, write: Write) {
        let key = (object.to_owned(), type_.to_owned());
        let mut book = self.book();
        book.written.entry(key).or_default().unanswered.push(write);
    }

    pub(crate) fn answered(&self, object: &str, type_: &str) {
        let key = (object.to_owned(), type_.to_owned());
        let mut book = self.book();
        book.written.entry(key).or_default().answered();
        book.counts.acknowledged += 1;
    }

    /// Creates (`there`) or deletes an object.
    pub(crate) fn begins_object(&self, name: &str, there: bool) {
        let write = Write {
            number: 0,
            is_problem: there,
        };
        let mut book = self.book();
        let writes = book.objects.entry(name.to_owned()).or_default();
        writes.unanswered.push(write);
    }

    pub(crate) fn answered_object(&self, name: &str) {
        let mut book = self.book();
        book.objects.entry(name.to_owned()).or_default().answered();
        book.counts.acknowledged += 1;
    }

    /// Somebody was told of this object.
    pub(crate) fn saw(&self, gpu: &native::Gpu) -> Result<()> {
        let (key, version) = (self.names.object(&gpu.name), gpu.version());
        let digest = gpu.content(&self.names).digest;
        let mut book = self.book();
        book.newest = book.newest.max(version);
        let told = *book.contents.entry(version).or_insert((key, digest));
        ensure!(
            told == (key, digest),
            "version {version} was given out for other content: {gpu:?}"
        );
        let health = health_of(gpu);
        if is_broken(gpu) && book.broken.contains(&gpu.name) {
            let first = book.unhealthy.entry(gpu.name.clone()).or_insert(version);
            *first = version.min(*first);
        }
        let is_healed = matches!(health, Health::Healthy | Health::Degraded);
        ensure!(
            !(is_healed
                && book
                    .unhealthy
                    .get(&gpu.name)
                    .is_some_and(|first| *first < version)),
            "{} was read as Unhealthy, and is {health:?}: {gpu:?}",
            gpu.name
        );
        Ok(())
    }

    pub(crate) fn watched(&self, version: Version, state: BTreeMap<String, Version>) {
        self.book().watched = (version, state);
    }

    pub(crate) fn last_watched(&self) -> (Version, BTreeMap<String, Version>) {
        self.book().watched.clone()
    }

    pub(crate) fn resumed(&self, went_on: bool) {
        let mut book = self.book();
        book.counts.resumed += u64::from(went_on);
        book.counts.refused += u64::from(!went_on);
    }

    /// The first list of a new run.
    pub(crate) fn restarted(&self, list: &native::ListGpusResponse) -> Result<()> {
        let version = list.resource_version.unsigned_abs();
        ensure!(
            version > self.newest(),
            "versions go back: from {} to {version}",
            self.newest()
        );
        for gpu in &list.gpus {
            self.saw(gpu)?;
        }
        let mut book = self.book();
        let Book {
            written,
            objects,
            counts,
            ..
        } = &mut *book;
        for ((object, type_), writes) in written {
            counts.unanswered += u64::try_from(writes.unanswered.len())?;
            let gpu = list.gpus.iter().find(|gpu| gpu.name == *object);
            let gpu = gpu.with_context(|| format!("{object} is gone"))?;
            let is = condition_of(gpu, type_);
            let survived = writes
                .found(is)
                .with_context(|| format!("{type_} of {object}"))?;
            counts.survived += u64::from(survived);
        }
        for (name, writes) in objects {
            let there = list.gpus.iter().any(|gpu| gpu.name == *name);
            writes.found_object(there).with_context(|| name.clone())?;
        }
        Ok(())
    }
}

impl Writes {
    fn answered(&mut self) {
        self.answered = self.unanswered.pop().or(self.answered);
        self.unanswered.clear();
    }

    fn may_be(&self) -> impl Iterator<Item = Write> + '_ {
        self.answered.iter().chain(&self.unanswered).copied()
    }

    /// What is there after a restart. Says whether it is a write that was not answered.
    fn found(&mut self, condition: Option<&native::Condition>) -> Result<bool> {
        let Some(condition) = condition else {
            ensure!(self.answered.is_none(), "{self:?} is lost");
            self.unanswered.clear();
            return Ok(false);
        };
        // As it was said, or `Last said: REASON: NUMBER`.
        let number = condition.message.rsplit(' ').next().unwrap_or_default();
        let number: u64 = number.parse().with_context(|| format!("{condition:?}"))?;
        let found = self.may_be().find(|write| write.number == number);
        let Some(found) = found else {
            bail!("{condition:?} is there instead of {self:?}");
        };
        let expected = if found.is_problem {
            ConditionStatus::True
        } else {
            ConditionStatus::Unknown
        };
        ensure!(
            condition.status() == expected,
            "{found:?} became {condition:?}: what was fine is Unknown, what was not is as it was"
        );
        let survived = self.answered != Some(found);
        self.answered = Some(found);
        self.unanswered.clear();
        Ok(survived)
    }

    fn found_object(&mut self, there: bool) -> Result<()> {
        let is_right = self.may_be().any(|write| write.is_problem == there)
            || (self.answered.is_none() && !there);
        ensure!(is_right, "there: {there}, after {self:?}");
        self.answered = Some(Write {
            number: 0,
            is_problem: there,
        });
        self.unanswered.clear();
        Ok(())
    }
}
