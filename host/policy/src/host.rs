//! Interface `host`: a line in the log, the time of the call, what this host can do.

use device_api_core::signal::printable;
use device_api_wasm::Ctx;

use crate::bindings::gpu::device_policy::host::{Host, Level};
use crate::data::{GuestData, LOG_LINE_BYTES_MAX};
use crate::features;

impl Host for Ctx<GuestData> {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.charge_host_call()?;
        let message = printable(&message, LOG_LINE_BYTES_MAX);
        let telemetry = &self.data.telemetry;
        if let Some(suppressed) = telemetry.admit_line() {
            let policy = telemetry.name();
            match level {
                Level::Debug => tracing::debug!(target: "policy", policy, suppressed, "{message}"),
                Level::Info => tracing::info!(target: "policy", policy, suppressed, "{message}"),
                Level::Warn => tracing::warn!(target: "policy", policy, suppressed, "{message}"),
                Level::Error => tracing::error!(target: "policy", policy, suppressed, "{message}"),
            }
        }
        if level == Level::Error {
            self.data.last_error = Some(message);
        }
        Ok(())
    }

    fn now_ms(&mut self) -> wasmtime::Result<u64> {
        self.charge_host_call()?;
        Ok(self.data.now_ms)
    }

    fn has(&mut self, feature: String) -> wasmtime::Result<bool> {
        self.charge_host_call()?;
        Ok(features::has(&feature))
    }
}
