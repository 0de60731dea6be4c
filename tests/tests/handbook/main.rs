//! What the documents have one type and write works: links lead somewhere, commands are commands, files are taken.
//! Lines of Helm, and values for it, are the business of `tests/tests/chart`; files of policies that of `host/policy`.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value that lacks what is asked for is null, and a test says so"
)]

mod blocks;
mod daemon;
mod devicectl;
mod help;
mod kubectl;
mod links;
mod programs;
mod release;
mod unit;
mod workflows;
