//! Generated from `wit/`. Everything unsafe of a guest is in here: the canonical ABI.

wit_bindgen::generate!({
    path: "../wit",
    world: "health-policy",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "device_policy_sdk::bindings",
    additional_derives: [PartialEq],
});

// Empty lists are the honest default of these two; the others have no default that says nothing.
#[expect(
    clippy::derivable_impls,
    reason = "the type is generated; there is nothing to derive on"
)]
impl Default for gpu::device_policy::types::Decision {
    fn default() -> Self {
        Self {
            verdicts: Vec::new(),
            wakes: Vec::new(),
            attrs: Vec::new(),
        }
    }
}
