//! Who may use whom: the house rules that `cargo xtask lint` enforces, each with its reason.
//!
//! This is the place to edit when an edge is right and the lint says no: add it with its reason, and
//! let the review argue about the reason.

/// A crate of ours and what it may depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crate {
    pub(crate) name: &'static str,
    /// Crates of ours it may use, in its code or its build script.
    pub(crate) may_use: &'static [&'static str],
    /// Crates of ours that its tests may use besides.
    pub(crate) tests_may_use: &'static [&'static str],
    /// Whether its code may use crates of others. Tests and build scripts, which no one links, may.
    pub(crate) others: Others,
    pub(crate) why: &'static str,
}

/// Crates that are not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    Allowed,
    /// The standard library alone.
    Forbidden,
}

/// A crate of others that has its place: `package` itself and all that is named `package-…`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnlyHere {
    pub(crate) package: &'static str,
    /// The crates of ours that may depend on it, in whatever way.
    pub(crate) crates: &'static [&'static str],
    pub(crate) why: &'static str,
}

/// A word of the language or a crate's name that has its place in the sources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamedIn {
    /// As it stands in code; comments and strings may name it anywhere.
    pub(crate) word: &'static str,
    /// Files, or folders (ending in `/`), from the root.
    pub(crate) places: &'static [&'static str],
    pub(crate) why: &'static str,
}

const fn row(name: &'static str, may_use: &'static [&'static str], why: &'static str) -> Crate {
    Crate {
        name,
        may_use,
        tests_may_use: &[],
        others: Others::Allowed,
        why,
    }
}

/// Every crate of the workspace.
pub(crate) const CRATES: &[Crate] = &[
    row(
        "device-api-server",
        &["device-api-runtime"],
        "the binary is parse, run, exit code; the runtime wires",
    ),
    row(
        "device-api-runtime",
        &[
            "bundled-policies",
            "device-api-cache",
            "device-api-core",
            "device-api-grpc",
            "device-api-kmsg",
            "device-api-nvml",
            "device-api-pipeline",
            "device-api-policy",
            "device-api-store",
        ],
        "the composition root, the one place that sees all rooms; the engine only through policy",
    ),
    row(
        "device-api-grpc",
        &["device-api-core", "device-api-peercred", "device-api-proto"],
        "serves through core's ports, so that another protocol can stand beside it",
    ),
    row(
        "device-api-peercred",
        &[],
        "one system call that no crate wraps, and the `unsafe` it takes",
    ),
    row(
        "device-api-cache",
        &["device-api-core"],
        "siblings never see siblings",
    ),
    row(
        "device-api-pipeline",
        &["device-api-core"],
        "siblings never see siblings",
    ),
    row(
        "device-api-nvml",
        &["device-api-core"],
        "siblings never see siblings",
    ),
    row(
        "device-api-kmsg",
        &["device-api-core"],
        "siblings never see siblings",
    ),
    row(
        "device-api-store",
        &["device-api-core"],
        "siblings never see siblings",
    ),
    Crate {
        tests_may_use: &["bundled-policies", "device-api-kmsg", "guest-build"],
        ..row(
            "device-api-policy",
            &["device-api-core", "device-api-wasm"],
            "the health world on the engine; only its tests judge with the bundled policies, \
             which are data to it, and the recorded kernel log, and build guests of WASI toolchains",
        )
    },
    row(
        "device-api-wasm",
        &[],
        "the engine knows nothing of health, so that it can host other worlds",
    ),
    Crate {
        name: "device-api-core",
        may_use: &[],
        tests_may_use: &[],
        others: Others::Forbidden,
        why: "the words of the house are pure: std alone",
    },
    row(
        "device-api-proto",
        &[],
        "generated from proto/ and nothing else",
    ),
    row(
        "device-policy-sdk",
        &[],
        "policy authors get the WIT contract, not the host",
    ),
    row(
        "xid-policy",
        &["device-policy-sdk"],
        "a guest sees the contract only",
    ),
    row(
        "nvml-health",
        &["device-policy-sdk"],
        "a guest sees the contract only",
    ),
    row(
        "guest-build",
        &[],
        "for build scripts and tests: builds the guests for wasm; a dependency would build them for the host",
    ),
    row(
        "bundled-policies",
        &["guest-build"],
        "carries components; its build script makes them",
    ),
    row(
        "slow-guest",
        &["device-policy-sdk"],
        "a fixture is written as a policy author would",
    ),
    row(
        "tally-guest",
        &["device-policy-sdk"],
        "a fixture is written as a policy author would",
    ),
    row(
        "wasi-p2-guest",
        &["device-policy-sdk"],
        "a fixture is written as a policy author would, on the standard library of WASI",
    ),
    row(
        "hostile-guests",
        &["device-policy-sdk"],
        "a fixture is written as a policy author would, one of ill will",
    ),
    row(
        "devicectl",
        &["device-api-proto"],
        "a client sees what is on the wire",
    ),
    row(
        "device-api-tests",
        &["device-api-proto", "guest-build", "nvml-sim"],
        "black box: no short cut into the host; its build script and tests make the guest fixtures",
    ),
    row(
        "device-api-examples",
        &["device-api-proto"],
        "what a user of the API would write: from what is on the wire",
    ),
    row(
        "nvml-sim",
        &[],
        "stands for the vendor's library, which knows nothing of us",
    ),
    row(
        "hardware-check",
        &[
            "device-api-core",
            "device-api-nvml",
            "device-api-proto",
            "device-api-tests",
            "nvml-sim",
        ],
        "holds the NVML source itself against nvidia-smi: readings have no way out of the daemon but policies",
    ),
    row(
        "demo",
        &["device-api-proto", "device-api-tests", "nvml-sim"],
        "drives the daemon with the tests' harness, from outside",
    ),
    row(
        "device-api-bench",
        &["bench-kit", "device-api-proto", "nvml-sim"],
        "measures from outside, over simulated NVML where faults are; without the tests' harness, which a release build would drag along",
    ),
    row(
        "device-api-policy-bench",
        &[
            "bench-kit",
            "bundled-policies",
            "device-api-cache",
            "device-api-core",
            "device-api-kmsg",
            "device-api-pipeline",
            "device-api-policy",
            "device-policy-sdk",
            "nvml-health",
            "xid-policy",
        ],
        "measures what no client can tell apart: rooms without their neighbours, and the bundled policies in native Rust beside their components",
    ),
    row(
        "bench-kit",
        &[],
        "statistics and the report, the same for all benchmarks",
    ),
    row(
        "xtask",
        &[],
        "is compiled before anything else and must work when nothing else does",
    ),
];

/// Crates of others that have their place.
pub(crate) const ONLY_HERE: &[OnlyHere] = &[
    OnlyHere {
        package: "tonic",
        crates: &[
            "demo",
            "device-api-bench",
            "device-api-examples",
            "device-api-grpc",
            "device-api-proto",
            "device-api-tests",
            "devicectl",
        ],
        why: "no crate outside grpc changes when a consumer wants another protocol",
    },
    OnlyHere {
        package: "wasmtime",
        crates: &["device-api-policy", "device-api-wasm"],
        why: "the engine has one door, with limits on it",
    },
    OnlyHere {
        package: "parking_lot",
        crates: &["device-api-cache"],
        why: "its version is a semantic choice (fairness), made for the cache's gate alone",
    },
    OnlyHere {
        package: "redb",
        crates: &["device-api-store"],
        why: "another database, or another format, changes nothing but the store",
    },
    OnlyHere {
        package: "nvml-wrapper",
        crates: &["device-api-nvml", "nvml-sim"],
        why: "NVML calls can hang; they are made on nvml's own threads (design N1)",
    },
];

/// Words that have their place.
pub(crate) const NAMED_IN: &[NamedIn] = &[
    NamedIn {
        word: "parking_lot",
        places: &[
            "host/cache/src/gate.rs",
            // Puts a model checker's locks in its place.
            "host/cache/tests/interleaving.rs",
        ],
        why: "the gate is the one reader-writer lock, its fairness tested there",
    },
    NamedIn {
        word: "unsafe",
        places: &[
            "host/nvml/",
            "host/peercred/",
            "host/wasm/src/compile/native.rs",
            "tests/nvml-sim/",
        ],
        why: "only the C boundary needs it, and compiled code, which nothing can check (docs/adr/0011)",
    },
];
