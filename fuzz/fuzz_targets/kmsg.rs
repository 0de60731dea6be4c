//! Lines of any bytes in the kernel log.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| device_api_fuzz::kernel_log(data));

#[cfg(not(fuzzing))]
fn main() {
    device_api_fuzz::replay(device_api_fuzz::kernel_log);
}
