//! What the engine room must know of this world.

use device_api_wasm::{Ctx, World};
use wasmtime::StoreContextMut;
use wasmtime::component::{HasSelf, InstancePre, Linker};

use crate::bindings::gpu::device_policy::types;
use crate::bindings::{HealthPolicy, HealthPolicyPre};
use crate::data::GuestData;

/// `gpu:device-policy/health-policy`. WASI is not linked: a component that asks for it is refused
/// at load, by name.
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
        &[
            "gpu:device-policy/state@0.1.0",
            "gpu:device-policy/nvml@0.1.0",
            "gpu:device-policy/host@0.1.0",
        ]
    }

    fn exports() -> &'static [&'static str] {
        &["gpu:device-policy/policy@0.1.0"]
    }

    fn add_to_linker(linker: &mut Linker<Ctx<GuestData>>) -> wasmtime::Result<()> {
        HealthPolicy::add_to_linker::<_, HasSelf<_>>(linker, |ctx| ctx)
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
