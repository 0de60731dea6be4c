//! Whose word a change of the cache is.

use std::sync::Arc;

/// Who a write is made for; told to the observer with each change that came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Author {
    /// The daemon itself: a lease that ran out.
    #[default]
    Host,
    /// NVML's inventory: a GPU was found, or is another than it was.
    Nvml,
    /// The pipeline: what was decided of signals, by policies, the floor or a fallback.
    Pipeline,
    /// A client, by the name under which its condition types are owned. It chose that name.
    Provider(Arc<str>),
}
