//! The store against real files and against disks that fail, hang, fill up and lose power.

#[cfg(test)]
mod common;
#[cfg(test)]
mod corrupt;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod group;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod panic;
#[cfg(test)]
mod power;
#[cfg(test)]
mod records;
#[cfg(test)]
mod reopen;
#[cfg(test)]
mod versions;
