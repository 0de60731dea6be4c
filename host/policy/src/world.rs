//! What the engine room must know of this world.

use std::sync::LazyLock;

use device_api_wasm::{Ctx, World, wasi};
use wasmtime::StoreContextMut;
use wasmtime::component::{HasSelf, InstancePre, Linker, types as wasm};

use crate::bindings::gpu::device_policy::types;
use crate::bindings::{HealthPolicy, HealthPolicyPre};
use crate::data::GuestData;

/// The contract's own interfaces, then WASI's.
static IMPORTS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let own = [
        "gpu:device-policy/state@0.1.0",
        "gpu:device-policy/nvml@0.1.0",
        "gpu:device-policy/host@0.1.0",
    ];
    own.into_iter()
        .chain(wasi::INTERFACES.iter().copied())
        .collect()
});

/// `gpu:device-policy/health-policy`, with WASI 0.2 for a component of a WASI toolchain, which reaches
/// nothing through it. What imports more is refused at load, by name.
#[derive(Debug)]
pub(crate) struct HealthWorld;

/// Types alone: nothing to do.
impl types::Host for Ctx<GuestData> {}

impl World for HealthWorld {
    const NAME: &'static str = "gpu:device-policy/health-policy@0.1.0";
    type Data = GuestData;
    type Linked = HealthPolicyPre<Ctx<GuestData>>;
    type Guest = HealthPolicy;

    fn imports() -> &'static [&'static str] {
        &IMPORTS
    }

    fn exports() -> &'static [&'static str] {
        &["gpu:device-policy/policy@0.1.0"]
    }

    fn add_to_linker(linker: &mut Linker<Ctx<GuestData>>) -> wasmtime::Result<()> {
        HealthPolicy::add_to_linker::<_, HasSelf<_>>(linker, |ctx| ctx)
    }

    fn add_wasi_to_linker(
        linker: &mut Linker<Ctx<GuestData>>,
        component: &wasm::Component,
    ) -> wasmtime::Result<()> {
        wasi::add_to_linker(linker, component)
    }

    fn prepare(pre: InstancePre<Ctx<GuestData>>) -> wasmtime::Result<Self::Linked> {
        HealthPolicyPre::new(pre)
    }

    fn instantiate(
        store: StoreContextMut<'_, Ctx<GuestData>>,
        linked: &Self::Linked,
    ) -> wasmtime::Result<HealthPolicy> {
        linked.instantiate(store)
    }
}
