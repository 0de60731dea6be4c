//! `xid-policy` as the component that the daemon carries, asked about every code there is, in every profile; and
//! the pages that are made of what it answers.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is a failed test"
)]

mod asked;
mod bare;
mod comparison;
mod decode;
mod operators;
mod pages;
mod profiles;
mod schema;
mod sxids;
mod table;
// The one checker of schemas; some of it only its own tests use.
#[path = "../../../../plugins/xid-policy/tests/schema/validator.rs"]
mod validator;
mod workflows;
mod xids;
