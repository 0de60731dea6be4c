//! Names the shared library as the driver's and keeps it mapped.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnvidia-ml.so.1");
    // The control thread runs in the library's code, and a driver outlives its clients: closing
    // the library must neither unmap that code nor heal the simulated GPUs.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
