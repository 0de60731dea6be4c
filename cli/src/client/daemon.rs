//! The calls of `DaemonService`.

use device_api_proto::native::{
    GetDaemonStatusRequest, GetDaemonStatusResponse, LogFilter, ResetLogFilterRequest,
    SetLogFilterRequest,
};
use tonic::Response;

use super::{Client, in_time};
use crate::failure::Failure;

impl Client {
    /// Asked before a call that may take minutes, so that a daemon that hangs is found out in seconds.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn is_there(&mut self) -> Result<(), Failure> {
        match self.daemon_status().await {
            // One that does not know the call is there, too.
            Ok(_) | Err(Failure::Refused(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) async fn daemon_status(&mut self) -> Result<GetDaemonStatusResponse, Failure> {
        let request = GetDaemonStatusRequest {};
        let answer = in_time(self.daemon.get_daemon_status(request)).await;
        answer
            .map(Response::into_inner)
            .map_err(|failure| self.explain(failure))
    }

    pub(crate) async fn set_log(
        &mut self,
        request: SetLogFilterRequest,
    ) -> Result<LogFilter, Failure> {
        let answer = in_time(self.daemon.set_log_filter(request)).await;
        answer
            .map(|answer| answer.into_inner().log.unwrap_or_default())
            .map_err(|failure| self.explain(failure))
    }

    pub(crate) async fn reset_log(&mut self) -> Result<LogFilter, Failure> {
        let request = ResetLogFilterRequest {};
        let answer = in_time(self.daemon.reset_log_filter(request)).await;
        answer
            .map(|answer| answer.into_inner().log.unwrap_or_default())
            .map_err(|failure| self.explain(failure))
    }
}
