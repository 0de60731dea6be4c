//! Where the server whose clients we take over fell short, each shown to be right here: over its own dialect,
//! on a real daemon. (Where a shortcoming has more sides, its test names the tests of the others.)

mod client;
mod faults;
mod operating;
mod reading;
mod writing;
