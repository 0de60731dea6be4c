//! The store against real files and against disks that fail, hang, fill up and lose power.

mod common;
mod corrupt;
mod disk;
mod faulty;
mod group;
mod kill;
mod power;
mod reopen;
mod versions;
