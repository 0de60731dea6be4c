//! The built library, loaded as a daemon loads it, and the command that breaks it.

// Marked as what they are, so that helpers may unwrap as tests may.
#[cfg(test)]
mod boards;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod healthy;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod mig;
#[cfg(test)]
mod process;
#[cfg(test)]
mod scenarios;
