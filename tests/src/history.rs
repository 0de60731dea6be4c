//! Records what clients are told, in the form that the checker ([`crate::linear`]) reads.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use device_api_proto::{native, upstream};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::linear::{Answer, Content, Field, Key, Operation, Seen, Time, Version};

fn nanoseconds(time: Timespec) -> Time {
    let (seconds, rest) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// Now, on the clock of all recorded times.
pub fn now() -> Time {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// A wall time of the recent past, as the daemon stamps what it observes, on the clock of [`now`]; up
/// to 20 µs late, never early.
pub fn recorded(wall: prost_types::Timestamp) -> Time {
    let (seconds, rest) = (wall.seconds.unsigned_abs(), wall.nanos.unsigned_abs());
    let wall = seconds * 1_000_000_000 + u64::from(rest);
    loop {
        let before = now();
        let present = nanoseconds(clock_gettime(ClockId::Realtime));
        let after = now();
        // Else something came between the two clocks.
        if after - before < 20_000 {
            return after.saturating_sub(present.saturating_sub(wall));
        }
    }
}

/// The objects that a history is about, and the condition types that have one writer each.
#[derive(Debug)]
pub struct Names {
    objects: HashMap<String, Key>,
    types: HashMap<String, Field>,
}

impl Names {
    pub fn new<'a>(
        objects: impl IntoIterator<Item = &'a str>,
        types: impl IntoIterator<Item = &'a str>,
    ) -> Arc<Self> {
        let owned = |(name, n): (&str, _)| (name.to_owned(), n);
        Arc::new(Self {
            objects: objects.into_iter().zip(0..).map(owned).collect(),
            types: types
                .into_iter()
                .zip(0..)
                .map(|(name, n)| (name.to_owned(), n))
                .collect(),
        })
    }

    /// # Panics
    /// Nobody named it: a mistake of the test.
    #[expect(clippy::panic, reason = "a mistake of the test, not of what it tests")]
    pub fn object(&self, name: &str) -> Key {
        match self.objects.get(name) {
            Some(key) => *key,
            None => panic!("{name} is none of the objects of this history"),
        }
    }

    pub fn field(&self, type_: &str) -> Option<Field> {
        self.types.get(type_).copied()
    }
}

/// Of a condition, what both dialects show and the version stands for.
struct Said<'a> {
    type_: &'a str,
    /// 1, 2, 3: True, False, Unknown.
    status: i32,
    reason: &'a str,
    message: &'a str,
    transition: Option<prost_types::Timestamp>,
}

impl Said<'_> {
    /// What its writer said: the transition time is the daemon's.
    fn value(&self) -> u64 {
        value(self.status, self.reason, self.message)
    }
}

/// The digest of what a writer says of a type it owns.
pub fn value(status: i32, reason: &str, message: &str) -> u64 {
    let mut digest = DefaultHasher::new();
    (status, reason, message).hash(&mut digest);
    digest.finish()
}

fn content(names: &Names, uid: &str, uuid: &str, action: &str, said: &[Said<'_>]) -> Content {
    let mut digest = DefaultHasher::new();
    (uid, uuid, action).hash(&mut digest);
    for said in said {
        let time = said.transition.map(|time| (time.seconds, time.nanos));
        (said.type_, said.value(), time).hash(&mut digest);
    }
    let field = |said: &Said<'_>| Some((names.field(said.type_)?, said.value()));
    let mut fields: Vec<_> = said.iter().filter_map(field).collect();
    fields.sort_unstable();
    Content {
        digest: digest.finish(),
        fields: fields.into(),
    }
}

/// An object as one of the dialects shows it.
pub trait Shown {
    fn name(&self) -> &str;
    fn version(&self) -> Version;
    fn content(&self, names: &Names) -> Content;

    fn seen(&self, names: &Names) -> Seen {
        Seen {
            key: names.object(self.name()),
            version: self.version(),
            content: self.content(names).digest,
        }
    }
}

impl Shown for native::Gpu {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> Version {
        self.resource_version.unsigned_abs()
    }

    fn content(&self, names: &Names) -> Content {
        let status = self.status.clone().unwrap_or_default();
        let said: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| Said {
                type_: &condition.r#type,
                status: condition.status,
                reason: &condition.reason,
                message: &condition.message,
                transition: condition.last_transition_time,
            })
            .collect();
        let uuid = self.spec.as_ref().map_or("", |spec| &*spec.uuid);
        content(names, &self.uid, uuid, &status.recommended_action, &said)
    }
}

impl Shown for upstream::Gpu {
    fn name(&self) -> &str {
        self.metadata.as_ref().map_or("", |meta| &*meta.name)
    }

    fn version(&self) -> Version {
        let meta = self.metadata.as_ref();
        meta.and_then(|meta| meta.resource_version.parse().ok())
            .unwrap_or_default()
    }

    fn content(&self, names: &Names) -> Content {
        let status = self.status.clone().unwrap_or_default();
        let said: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| Said {
                type_: &condition.r#type,
                status: match &*condition.status {
                    "True" => 1,
                    "False" => 2,
                    _ => 3,
                },
                reason: &condition.reason,
                message: &condition.message,
                transition: condition.last_transition_time,
            })
            .collect();
        let uid = self.metadata.as_ref().map_or("", |meta| &*meta.uid);
        let uuid = self.spec.as_ref().map_or("", |spec| &*spec.uuid);
        content(names, uid, uuid, &status.recommended_action, &said)
    }
}

/// One client's operations, at most so many.
#[derive(Debug)]
pub struct Recorder {
    pub names: Arc<Names>,
    operations: Vec<Operation>,
    max: usize,
}

impl Recorder {
    pub fn new(names: Arc<Names>, max: usize) -> Self {
        Self {
            names,
            operations: Vec::new(),
            max,
        }
    }

    pub fn is_full(&self) -> bool {
        self.operations.len() >= self.max
    }

    /// Notes what was told just now about a call that began then.
    pub fn note(&mut self, began: Time, answer: Answer) {
        self.operations.push(Operation {
            began,
            ended: now(),
            answer,
        });
    }

    pub fn list<'a, G: Shown + 'a>(
        &mut self,
        began: Time,
        version: Version,
        gpus: impl IntoIterator<Item = &'a G>,
    ) {
        let ended = now();
        let seen = gpus.into_iter().map(|gpu| gpu.seen(&self.names)).collect();
        self.operations.push(Operation {
            began,
            ended,
            answer: Answer::List { version, seen },
        });
    }

    pub fn into_operations(self) -> Vec<Operation> {
        self.operations
    }
}
