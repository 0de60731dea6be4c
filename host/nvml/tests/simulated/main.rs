//! The source on the simulated NVML, over the very path that a real library takes.
//!
//! A simulated driver lives as long as its process and takes its settings from the environment, so
//! each test runs in a process of its own: see [`harness::isolated`].

#[cfg(test)]
mod errors;
#[cfg(test)]
mod hangs;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod inventory;
#[cfg(test)]
mod library;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod readings;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod releases;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod spinning;
