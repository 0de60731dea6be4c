//! Calls itself as another policy of the directory does (`brink-of-the-deadline`, which is there too).
//!
//! Must come of it: the later file is refused at load, naming both.

use device_policy_sdk::Info;

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, _: &Me, _: &str) -> Result<Info, String> {
        let name = "brink-of-the-deadline".to_owned();
        let condition = "DuplicateName".to_owned();
        Ok(Me { name, condition }.ordinary())
    }
}
