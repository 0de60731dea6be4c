//! Which GPUs a list or a watch is about: a namespace, labels and fields (design W3).
//!
//! Labels are selected as in Kubernetes: `zone=a`, `zone!=a`, `zone in (a, b)`, `zone notin (a, b)`,
//! `zone`, `!zone`, joined by commas, all of which must hold. Fields are selected by `=`, `==` and
//! `!=` alone, on the paths of [`Field`].

mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::gpu::Gpu;
use crate::ids::PciAddress;
use crate::watch::Scope;

pub use parse::{fields, labels};

/// What is selected: all of it must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    pub scope: Scope,
    pub labels: Vec<LabelTerm>,
    pub fields: Vec<FieldTerm>,
    /// MIG instances are left out: for a dialect that has no word for them (design N9).
    pub whole_gpus: bool,
}

impl Selection {
    pub fn all() -> Self {
        Self::of(Scope::All)
    }

    pub fn of(scope: Scope) -> Self {
        Self {
            scope,
            labels: Vec::new(),
            fields: Vec::new(),
            whole_gpus: false,
        }
    }

    /// Whether it selects whatever there is, where so many of it are MIG instances.
    pub fn is_all(&self, instances: usize) -> bool {
        self.scope == Scope::All
            && self.labels.is_empty()
            && self.fields.is_empty()
            && (!self.whole_gpus || instances == 0)
    }

    pub fn holds(&self, gpu: &Gpu) -> bool {
        self.scope.holds(gpu)
            && !(self.whole_gpus && gpu.device.parent.is_some())
            && self.labels.iter().all(|term| term.holds(gpu))
            && self.fields.iter().all(|term| term.holds(gpu))
    }
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTerm {
    key: String,
    wants: Wants,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wants {
    Exists,
    Absent,
    In(Vec<String>),
    /// One without the label passes, as in Kubernetes.
    NotIn(Vec<String>),
}

impl LabelTerm {
    fn holds(&self, gpu: &Gpu) -> bool {
        let value = gpu.device.labels.get(&self.key);
        match &self.wants {
            Wants::Exists => value.is_some(),
            Wants::Absent => value.is_none(),
            Wants::In(values) => value.is_some_and(|value| values.contains(value)),
            Wants::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
        }
    }
}

/// What a field selector can ask for. Times and messages are no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Name,
    Namespace,
    Uuid,
    Product,
    Architecture,
    PciAddress,
    MigParent,
    Health,
    RecommendedAction,
}

impl Field {
    pub const ALL: [Self; 9] = [
        Self::Name,
        Self::Namespace,
        Self::Uuid,
        Self::Product,
        Self::Architecture,
        Self::PciAddress,
        Self::MigParent,
        Self::Health,
        Self::RecommendedAction,
    ];

    pub fn path(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Namespace => "namespace",
            Self::Uuid => "spec.uuid",
            Self::Product => "spec.product",
            Self::Architecture => "spec.architecture",
            Self::PciAddress => "spec.pci_address",
            Self::MigParent => "spec.mig_parent",
            Self::Health => "status.health",
            Self::RecommendedAction => "status.recommended_action",
        }
    }
}

/// One requirement on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    field: Field,
    equal: bool,
    value: String,
    /// The value as an address, where it is one: nothing is written out to be compared.
    pci: Option<PciAddress>,
}

impl FieldTerm {
    fn holds(&self, gpu: &Gpu) -> bool {
        let value = self.value.as_str();
        let is = match self.field {
            Field::Name => *gpu.key.name == *value,
            Field::Namespace => *gpu.key.namespace == *value,
            Field::Uuid => gpu.uuid.as_str() == value,
            Field::Product => gpu.device.product == value,
            Field::Architecture => gpu.device.architecture == value,
            Field::PciAddress => self.pci.is_some() && gpu.device.pci == self.pci,
            Field::MigParent => {
                let parent = gpu.device.parent.as_ref();
                parent.map_or("", |parent| parent.gpu.as_str()) == value
            }
            Field::Health => gpu.derived.health.as_str() == value,
            Field::RecommendedAction => gpu.derived.action.as_str() == value,
        };
        is == self.equal
    }
}

/// What is wrong with a selector, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSelector(pub String);

impl fmt::Display for BadSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadSelector {}
