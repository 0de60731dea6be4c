//! Generated from `wit/`; named by `world`, `convert`, `validate` and the interface files only.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "health-policy",
    imports: { default: trappable },
});
