//! From a [`Policy`] to the component's exports.

use std::cell::RefCell;

use crate::bindings::gpu::device_policy::{host, types};
use crate::{Host, Imports, Info};

/// A policy. A value of it is what `configure` made of the config text, and the only thing that an
/// instance may remember: the host replaces instances at will.
pub trait Policy: Sized + 'static {
    /// Reads the config (empty text: defaults) and says what the policy is. The same text gives
    /// the same answer.
    ///
    /// # Errors
    /// What is wrong with the text and what to do; the policy is then not loaded.
    fn configure(config: &str) -> Result<(Self, Info), String>;

    /// Judges signals of one device, in their order. No opinion is an empty decision.
    ///
    /// # Errors
    /// A failure of the policy: nothing is committed, and the host's fallback applies.
    fn evaluate(
        &self,
        host: &mut dyn Host,
        device: &types::Device,
        signals: &[types::Signal],
    ) -> Result<types::Decision, String>;
}

/// Holds the configured policy of an instance; made by [`export!`](crate::export).
#[derive(Debug)]
pub struct Configured<P>(RefCell<Option<P>>);

impl<P: Policy> Configured<P> {
    #[expect(clippy::new_without_default, reason = "made by export! only")]
    pub const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// # Errors
    /// As [`Policy::configure`]; what was configured before then stays.
    pub fn configure(&self, config: &str) -> Result<types::Info, String> {
        report_panics();
        let (policy, info) = P::configure(config)?;
        *self.0.borrow_mut() = Some(policy);
        Ok(info.into())
    }

    /// # Errors
    /// As [`Policy::evaluate`], and where the instance was not configured.
    pub fn evaluate(
        &self,
        device: &types::Device,
        signals: &[types::Signal],
    ) -> Result<types::Decision, String> {
        match &*self.0.borrow() {
            Some(policy) => policy.evaluate(&mut Imports, device, signals),
            None => Err("evaluate was called before configure succeeded".to_owned()),
        }
    }
}

/// A panic is a trap, and a trap has no words: say them to the log first.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        host::log(host::Level::Error, &panic.to_string())
    }));
}

/// Makes the component's exports of a [`Policy`] type. A native build is left without them: there
/// the policy is a plain library with unit tests.
#[macro_export]
macro_rules! export {
    ($policy:ident) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            thread_local! {
                static CONFIGURED: $crate::Configured<$policy> = const { $crate::Configured::new() };
            }

            struct Component;

            impl $crate::bindings::exports::gpu::device_policy::policy::Guest for Component {
                fn configure(
                    config: ::std::string::String,
                ) -> ::std::result::Result<$crate::types::Info, ::std::string::String> {
                    CONFIGURED.with(|policy| policy.configure(&config))
                }

                fn evaluate(
                    device: $crate::types::Device,
                    signals: ::std::vec::Vec<$crate::types::Signal>,
                ) -> ::std::result::Result<$crate::types::Decision, ::std::string::String> {
                    CONFIGURED.with(|policy| policy.evaluate(&device, &signals))
                }
            }

            $crate::bindings::export_component!(Component with_types_in $crate::bindings);
        };
    };
}
