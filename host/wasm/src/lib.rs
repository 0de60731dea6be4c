//! The engine room of the policy host: it runs other people's WebAssembly components with a limit on
//! everything, and knows nothing of what they are for. A [`World`] says which imports a guest may
//! have and which exports it must have; this crate does the rest.
//!
//! ```text
//!  bytes ──Engine::load──▶ Loaded ──Program::<W>::link──▶ Program<W> ──Sandbox::start──▶ Sandbox<W>
//!          size, kind,             imports and exports                instantiate,        │  call
//!          digest, compile         against the world                  configure           ▼
//!                                                                            Ok │ CallError (retired)
//! ```
//!
//! # The boundary
//! A guest **can** compute, use memory up to [`Limits::memory_bytes_max`], and call the host functions
//! that its world links, [`Limits::host_calls_max`] times a call. It **can't** reach anything else (no
//! files, sockets, environment, clock, threads: what the world does not link is refused at load, by
//! name), outlive its deadline, keep the host's memory growing, or take the caller down: a trap, an
//! exhausted limit and a panic in a host function all end as one [`CallError`], and the sandbox is
//! retired, since an instance that was left in the middle can't be entered again. A new one from the
//! same [`Program`] costs tens of microseconds.
//!
//! Two things this crate can't do for a world. **Host functions must not block**: the deadline is
//! looked at in guest code and on return to it, never inside a host function (nor inside one of the
//! instructions that fill or copy memory, which [`Limits::memory_bytes_max`] bounds). And **compiling** is
//! bounded by [`Compiler::load`] alone, which has a process for it ([`compile`]); [`Engine::load`] bounds
//! the input only.
//!
//! **Invariant:** native code is never taken from outside; everything run was compiled by this program.
//!
//! ```
//! use device_api_wasm::{Ctx, Engine, Limits, Program, Sandbox, World};
//! use wasmtime::StoreContextMut;
//! use wasmtime::component::{Instance, InstancePre, Linker, TypedFunc};
//!
//! struct Answers;
//! impl World for Answers {
//!     const NAME: &'static str = "example:answers";
//!     type Data = ();
//!     type Linked = InstancePre<Ctx<()>>;
//!     type Guest = TypedFunc<(), (u32,)>;
//!     fn imports() -> &'static [&'static str] { &[] }
//!     fn exports() -> &'static [&'static str] { &["run"] }
//!     fn add_to_linker(_: &mut Linker<Ctx<()>>) -> wasmtime::Result<()> { Ok(()) }
//!     fn prepare(pre: InstancePre<Ctx<()>>) -> wasmtime::Result<Self::Linked> { Ok(pre) }
//!     fn instantiate(mut store: StoreContextMut<'_, Ctx<()>>, pre: &Self::Linked) -> wasmtime::Result<Self::Guest> {
//!         let instance: Instance = pre.instantiate(&mut store)?;
//!         instance.get_typed_func(&mut store, "run")
//!     }
//! }
//!
//! # let bytes = wat::parse_str(r#"(component (core module $m (func (export "run") (result i32) i32.const 42))
//! #   (core instance $i (instantiate $m)) (func (export "run") (result u32) (canon lift (core func $i "run"))))"#)?;
//! let engine = Engine::new()?;
//! let program = Program::<Answers>::link(&engine.load(&bytes, Limits::default())?)?;
//! let (mut sandbox, ()) = Sandbox::start(&program, (), |_, _| Ok(()))?;
//! let (answer,) = sandbox.call(|store, run| run.call(store, ()))?;
//! assert_eq!(answer, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod binary;
pub mod compile;
mod engine;
mod error;
mod imports;
mod lifecycle;
mod limits;
mod load;
mod meter;
mod program;
mod sandbox;
mod ticker;
pub mod wasi;
mod words;

pub use binary::begins_as_component;
pub use compile::{
    COMPILE_DEADLINE_DEFAULT, Cached, CompileCounters, CompileRefusal, Compiler, CompilerError,
    CompilerSettings, Worker, compile_memory_bytes, compile_worker,
};
pub use engine::Engine;
pub use error::{BoxError, CallError, EngineError, LoadError};
pub use lifecycle::{Ask, Conduct, Lifecycle, Patience, Stage, Turn};
pub use limits::{EPOCH_TICK, GUEST_STACK_BYTES, LimitError, LimitRow, Limits};
pub use load::Loaded;
pub use meter::Ctx;
pub use program::{Program, World};
pub use sandbox::{CallStats, Sandbox, Wear, panic_message, thread_cpu_time};
pub use ticker::TickerView;
