//! What a watch tells (design section 3).

use std::sync::Arc;

use crate::gpu::Gpu;
use crate::ids::ResourceVersion;
use crate::selector::Selection;

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub const ALL: [Self; 3] = [Self::Added, Self::Modified, Self::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one GPU. `gpu.version` is the change's; a `Deleted` carries the deletion's.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub type_: EventType,
    pub gpu: Arc<Gpu>,
    /// What it was before; `None` where it is new.
    pub before: Option<Arc<Gpu>>,
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFrom {
    /// The current state as `Added`, then changes.
    Now,
    /// Exactly the changes after this version.
    After(ResourceVersion),
}

/// Which objects a List or Watch is about. The empty namespace of the wire is [`Scope::All`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Namespace(Arc<str>),
}

impl Scope {
    pub fn from_wire(namespace: &str) -> Self {
        if namespace.is_empty() {
            Self::All
        } else {
            Self::Namespace(namespace.into())
        }
    }

    /// Compared exactly: `default` does not match `default2`.
    pub fn holds(&self, gpu: &Gpu) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => gpu.key.namespace == *namespace,
        }
    }
}

/// What a watch is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    pub selection: Selection,
    pub from: WatchFrom,
    /// Every change for itself: one that falls behind is ended instead of merged (design W2).
    pub exact: bool,
    /// Also tells versions up to which there was nothing (more) to tell (design W3).
    pub bookmarks: bool,
}

/// What a watch tells at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// In ascending version; never empty.
    Changes(Vec<Event>),
    /// All changes up to this version were told. `initial`: the state at the start was, too.
    Bookmark {
        version: ResourceVersion,
        initial: bool,
    },
}

/// Why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The daemon is going down.
    Closed,
    /// An exact watch fell behind by more than `max` changes.
    Behind { max: usize },
}

/// A list: GPUs that existed together at one version, in the order of their names.
#[derive(Clone, Debug)]
pub struct Listing {
    pub version: ResourceVersion,
    pub gpus: Arc<[Arc<Gpu>]>,
}
