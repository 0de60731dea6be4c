//! The vendor's XID catalogue, compiled in.

/// What the vendor says to do at once. The plain words, then the workflows that look further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    RestartApp,
    Ignore,
    ResetGpu,
    RestartBm,
    RestartVm,
    ContactSupport,
    CheckMechanicals,
    CheckUvm,
    UpdateSoftware,
    /// 45: cleanup after another XID.
    FollowRoot,
    /// 48: contained or not, which 63 and 94 tell.
    DoubleBit,
    /// 74: seven registers in the text.
    NvLink,
    /// 144–150: two words in the text, decoded by driver generation.
    NvLink5,
    /// 154: the driver says what it needs.
    Recovery,
    /// The vendor published none.
    Unpublished,
}

/// One row of `data/xid-catalog.csv`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub code: u64,
    /// The vendor's name; `Unused` where the code is retired. Empty: only the number is known.
    pub name: &'static str,
    pub remedy: Remedy,
    /// What the vendor says to investigate afterwards; often empty.
    pub investigate: &'static str,
}

/// Ascending by code (build.rs sees to it).
pub(crate) static CATALOG: &[Entry] = &include!(concat!(env!("OUT_DIR"), "/catalog.rs"));

pub(crate) fn lookup(code: u64) -> Option<&'static Entry> {
    let at = CATALOG
        .binary_search_by_key(&code, |entry| entry.code)
        .ok()?;
    CATALOG.get(at)
}
