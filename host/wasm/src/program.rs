//! A component that was checked against a world and linked: what sandboxes are started from.

use std::fmt;
use std::sync::Arc;

use wasmtime::component::{InstancePre, Linker, types};
use wasmtime::{Store, StoreContextMut};

use crate::engine::Engine;
use crate::error::{CallError, LoadError};
use crate::imports;
use crate::limits::Limits;
use crate::load::Loaded;
use crate::meter::Ctx;

/// What a kind of guest may import and must export, and how to reach it. Implemented once per
/// world, over generated bindings. Host functions call [`Ctx::charge_host_call`] first and never block.
pub trait World: 'static {
    /// For messages: `gpu:device-policy/health-policy@0.1.0`.
    const NAME: &'static str;

    /// What host functions work on; one per sandbox.
    type Data: Send + 'static;

    /// The linked component with its exports looked up: the generated `…Pre`.
    type Linked: Send + Sync + 'static;

    /// A live instance: the generated bindings.
    type Guest: Send + 'static;

    /// Interfaces that a guest may import, versioned: `gpu:device-policy/state@0.1.0`. A guest built
    /// for another version that semver calls compatible is let in.
    fn imports() -> &'static [&'static str];

    /// Interfaces (or plain functions) that a guest must export.
    fn exports() -> &'static [&'static str];

    /// Defines what [`World::imports`] names.
    ///
    /// # Errors
    /// Those of the linker: a name defined twice.
    fn add_to_linker(linker: &mut Linker<Ctx<Self::Data>>) -> wasmtime::Result<()>;

    /// Defines what `component` imports of WASI, where [`World::imports`] names [`wasi::INTERFACES`]:
    /// [`wasi::add_to_linker`]. Nothing, by default.
    ///
    /// [`wasi::INTERFACES`]: crate::wasi::INTERFACES
    /// [`wasi::add_to_linker`]: crate::wasi::add_to_linker
    ///
    /// # Errors
    /// It asks for more than WASI 0.2 has.
    fn add_wasi_to_linker(
        _linker: &mut Linker<Ctx<Self::Data>>,
        _component: &types::Component,
    ) -> wasmtime::Result<()> {
        Ok(())
    }

    /// Looks the exports up, so that wrong types are found at load and not at the first call.
    ///
    /// # Errors
    /// An export is missing or has another type.
    fn prepare(pre: InstancePre<Ctx<Self::Data>>) -> wasmtime::Result<Self::Linked>;

    /// # Errors
    /// A limit, or a trap in the guest's start function.
    fn instantiate(
        store: StoreContextMut<'_, Ctx<Self::Data>>,
        linked: &Self::Linked,
    ) -> wasmtime::Result<Self::Guest>;
}

/// A linked component. A handle: clones share it.
pub struct Program<W: World> {
    shared: Arc<Shared<W>>,
}

struct Shared<W: World> {
    engine: Engine,
    linked: W::Linked,
    digest: Arc<str>,
    limits: Limits,
}

impl<W: World> Program<W> {
    /// Checks imports and exports (versions first, so that a component of another version is told
    /// so), then links.
    ///
    /// # Errors
    /// [`LoadError::Version`], [`LoadError::Import`], [`LoadError::Export`] or [`LoadError::Link`].
    pub fn link(loaded: &Loaded) -> Result<Self, LoadError> {
        let engine = loaded.engine();
        imports::check::<W>(engine.wasmtime(), &loaded.component().component_type())?;
        let linked = link::<W>(engine, loaded).map_err(|error| LoadError::Link {
            world: W::NAME,
            source: error.into(),
        })?;
        Ok(Self {
            shared: Arc::new(Shared {
                engine: engine.clone(),
                linked,
                digest: Arc::clone(loaded.digest()),
                limits: *loaded.limits(),
            }),
        })
    }

    /// SHA-256 of the component, lower-case hex.
    #[must_use]
    pub fn digest(&self) -> &Arc<str> {
        &self.shared.digest
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    pub(crate) fn linked(&self) -> &W::Linked {
        &self.shared.linked
    }

    /// An empty store with every limit set.
    pub(crate) fn store(&self, data: W::Data) -> Result<Store<Ctx<W::Data>>, CallError> {
        let limits = self.limits();
        let mut store =
            Store::try_new(self.engine().wasmtime(), Ctx::new(data, limits)).map_err(|error| {
                CallError::Instantiate {
                    message: error.to_string(),
                }
            })?;
        store.limiter(|ctx| &mut ctx.meter);
        store.set_hostcall_fuel(limits.crossing_bytes_max);
        store.set_max_component_handles(limits.handles_max);
        // Each tick makes the guest look at the clock: the deadline then holds to a tick, however
        // late or early the ticker runs.
        store.epoch_deadline_callback(|store| {
            Ok(if store.data().meter.is_past_deadline() {
                wasmtime::UpdateDeadline::Interrupt
            } else {
                wasmtime::UpdateDeadline::Continue(1)
            })
        });
        Ok(store)
    }
}

fn link<W: World>(engine: &Engine, loaded: &Loaded) -> wasmtime::Result<W::Linked> {
    let mut linker = Linker::new(engine.wasmtime());
    W::add_to_linker(&mut linker)?;
    W::add_wasi_to_linker(&mut linker, &loaded.component().component_type())?;
    W::prepare(linker.instantiate_pre(loaded.component())?)
}

impl<W: World> Clone for Program<W> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<W: World> fmt::Debug for Program<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("world", &W::NAME)
            .field("digest", &self.shared.digest)
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}
