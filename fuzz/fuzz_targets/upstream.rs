//! Requests of any bytes to the upstream dialect.
#![cfg_attr(fuzzing, no_main)]

const PACKAGE: &str = "nvidia.nvsentinel.v1alpha1";

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| device_api_fuzz::attack(PACKAGE, data));

#[cfg(not(fuzzing))]
fn main() {
    device_api_fuzz::replay(|data| device_api_fuzz::attack(PACKAGE, data));
}
