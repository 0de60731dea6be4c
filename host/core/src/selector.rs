//! Which GPUs a list or a watch is about: a namespace, labels and fields (design W3).
//!
//! Labels are selected as in Kubernetes: `zone=a`, `zone!=a`, `zone in (a, b)`, `zone notin (a, b)`,
//! `zone`, `!zone`, joined by commas, all of which must hold. Fields are selected by `=`, `==` and
//! `!=` alone, on the paths of [`Field`].

use std::fmt;

use crate::gpu::Gpu;
use crate::ids::PciAddress;
use crate::limits::{
    LABEL_VALUE_BYTES_MAX, NAME_BYTES_MAX, SELECTOR_BYTES_MAX, SELECTOR_TERMS_MAX,
    SELECTOR_VALUES_MAX,
};
use crate::watch::Scope;

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

fn bad<T>(why: impl Into<String>) -> Result<T, BadSelector> {
    Err(BadSelector(why.into()))
}

/// Reads a label selector; the empty one selects all.
///
/// # Errors
/// [`BadSelector`] names the term.
pub fn labels(text: &str) -> Result<Vec<LabelTerm>, BadSelector> {
    terms(text)?.into_iter().map(label_term).collect()
}

/// Reads a field selector; the empty one selects all.
///
/// # Errors
/// [`BadSelector`] names the term, and the fields there are.
pub fn fields(text: &str) -> Result<Vec<FieldTerm>, BadSelector> {
    terms(text)?.into_iter().map(field_term).collect()
}

/// Splits at the commas that are not in parentheses.
fn terms(text: &str) -> Result<Vec<&str>, BadSelector> {
    if text.len() > SELECTOR_BYTES_MAX {
        return bad(format!(
            "{} bytes; at most {SELECTOR_BYTES_MAX}",
            text.len()
        ));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut depth = 0_usize;
    let parts: Vec<&str> = text
        .split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .collect();
    if parts.len() > SELECTOR_TERMS_MAX {
        return bad(format!(
            "{} terms; at most {SELECTOR_TERMS_MAX}",
            parts.len()
        ));
    }
    Ok(parts)
}

fn label_term(term: &str) -> Result<LabelTerm, BadSelector> {
    let (key, wants) = if let Some((key, value)) = term.split_once("!=") {
        (key, Wants::NotIn(vec![label_value(term, value)?]))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Wants::In(vec![label_value(term, value)?]))
    } else if let Some((head, list)) = term.split_once('(') {
        let values = label_values(term, list)?;
        match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => (*key, Wants::In(values)),
            [key, "notin"] => (*key, Wants::NotIn(values)),
            _ => {
                return bad(format!(
                    "{term:?}: write `key in (a, b)` or `key notin (a, b)`"
                ));
            }
        }
    } else if let Some(key) = term.strip_prefix('!') {
        (key, Wants::Absent)
    } else {
        (term, Wants::Exists)
    };
    Ok(LabelTerm {
        key: label_key(term, key)?,
        wants,
    })
}

fn label_key(term: &str, key: &str) -> Result<String, BadSelector> {
    let key = key.trim();
    let is_key = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    // A prefix (a DNS name), a slash and a name.
    if key.is_empty() || key.len() > NAME_BYTES_MAX + 64 || !key.bytes().all(is_key) {
        return bad(format!("{term:?}: {key:?} is no label key"));
    }
    Ok(key.to_owned())
}

fn label_value(term: &str, value: &str) -> Result<String, BadSelector> {
    let value = value.trim();
    let is_value = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.len() > LABEL_VALUE_BYTES_MAX || !value.bytes().all(is_value) {
        return bad(format!("{term:?}: {value:?} is no label value"));
    }
    Ok(value.to_owned())
}

fn label_values(term: &str, list: &str) -> Result<Vec<String>, BadSelector> {
    let Some(list) = list.trim_end().strip_suffix(')') else {
        return bad(format!("{term:?}: the list does not end in ')'"));
    };
    let values = list
        .split(',')
        .map(|value| label_value(term, value))
        .collect::<Result<Vec<_>, _>>()?;
    if values.len() > SELECTOR_VALUES_MAX {
        return bad(format!(
            "{} values in one list; at most {SELECTOR_VALUES_MAX}",
            values.len()
        ));
    }
    Ok(values)
}

fn field_term(term: &str) -> Result<FieldTerm, BadSelector> {
    let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
        (path, false, value)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, true, value)
    } else {
        return bad(format!("{term:?}: write `field=value` or `field!=value`"));
    };
    let path = path.trim();
    let Some(field) = Field::ALL.into_iter().find(|field| field.path() == path) else {
        let known: Vec<_> = Field::ALL.into_iter().map(Field::path).collect();
        return bad(format!(
            "{path:?} is no field to select by; these are: {}",
            known.join(", ")
        ));
    };
    Ok(FieldTerm {
        field,
        equal,
        value: value.trim().to_owned(),
        pci: value.trim().parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::WallTime;
    use crate::device::DeviceInfo;
    use crate::health::{Derived, Health};
    use crate::ids::{DeviceUuid, ObjectKey, ResourceVersion};

    fn gpu() -> Gpu {
        let uuid = DeviceUuid::new("GPU-0");
        let mut info = DeviceInfo::bare(uuid.clone());
        info.product = "NVIDIA H100 80GB HBM3".to_owned();
        info.pci = "0000:1b:00.0".parse().ok();
        info.labels = [("zone", "a"), ("site.example/tier", "gold")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        Gpu {
            key: ObjectKey::new("", "gpu-0"),
            uid: "uid".into(),
            generation: 1,
            created: WallTime::default(),
            version: ResourceVersion(1),
            uuid,
            device: Arc::new(info),
            conditions: [].into(),
            derived: Derived {
                health: Health::Degraded,
                ..Derived::default()
            },
            ready_since: WallTime::default(),
            encoded: Default::default(),
        }
    }

    #[test]
    fn w3_labels_are_selected_as_in_kubernetes() {
        #[track_caller]
        fn check(selector: &str, expected: bool) {
            let selection = Selection {
                labels: labels(selector).expect("well-formed"),
                ..Selection::all()
            };
            assert_eq!(selection.holds(&gpu()), expected, "{selector}");
        }
        check("", true);
        check("zone=a", true);
        check("zone==a", true);
        check("zone=b", false);
        check("zone!=a", false);
        check("zone!=b", true);
        check("rack!=b", true);
        check("zone in (b, a)", true);
        check("zone in (b)", false);
        check("zone notin (b,c)", true);
        check("rack notin (b)", true);
        check("zone", true);
        check("rack", false);
        check("!rack", true);
        check("!zone", false);
        check("zone=a,site.example/tier in (gold,silver),!rack", true);
        check("zone=a, site.example/tier=silver", false);
    }

    #[test]
    fn w3_fields_are_selected_by_their_path() {
        #[track_caller]
        fn check(selector: &str, expected: bool) {
            let selection = Selection {
                fields: fields(selector).expect("well-formed"),
                ..Selection::all()
            };
            assert_eq!(selection.holds(&gpu()), expected, "{selector}");
        }
        check("status.health=Degraded", true);
        check("status.health!=Healthy,name=gpu-0", true);
        check("status.health==Unhealthy", false);
        check("spec.product=NVIDIA H100 80GB HBM3", true);
        check("spec.pci_address=0000:1b:00.0", true);
        check("status.recommended_action=NONE", true);
        check("namespace!=default", false);
        check("spec.uuid=GPU-1", false);
        check("spec.architecture=", true);
    }

    #[test]
    fn what_is_no_selector_is_refused_by_name() {
        #[track_caller]
        fn check(read: Result<(), BadSelector>, expected: &str) {
            let why = read.expect_err("refused").0;
            assert!(why.contains(expected), "{why}");
        }
        let label = |text: &str| labels(text).map(drop);
        let field = |text: &str| fields(text).map(drop);
        check(label("zone in a"), "no label key");
        check(label("zone in (a"), "does not end in ')'");
        check(label("zone like (a)"), "write `key in (a, b)`");
        check(label("zone=a b"), "no label value");
        check(label(","), "no label key");
        check(label(&"a,".repeat(40)), "at most 32");
        check(label(&format!("a in ({})", "b,".repeat(70))), "at most 64");
        check(label(&"a".repeat(5000)), "5000 bytes");
        check(field("status.health"), "write `field=value`");
        check(field("status.mood=good"), "status.health");
    }
}
