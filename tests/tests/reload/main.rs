//! Policies come, go and are replaced while the daemon runs (design H3 to H10): the real daemon, a real
//! directory, real components.

// Named so that it begins first: it takes as long as all others.
mod a_thousand_swaps;
mod admission;
mod cache;
mod cold;
mod configmap;
mod manifest;
mod plain;
mod quarantine;
mod rig;
mod safe_mode;
mod state;
mod unsaved;
