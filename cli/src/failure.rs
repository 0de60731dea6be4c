//! Why a command failed: one line that says what to do, and an exit code.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tonic::Code;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot connect to {}: {}", socket.display(), connect_help(source))]
    Connect { socket: PathBuf, source: io::Error },
    #[error("{} does not speak gRPC: {why}; name the socket of device-api-server with --socket", socket.display())]
    NotGrpc { socket: PathBuf, why: String },
    #[error("no answer within {} s; the daemon is there, but hangs: see its log", after.as_secs())]
    NoAnswer { after: Duration },
    #[error("{}: {}", .0.code(), if .0.message().is_empty() { "no reason given" } else { .0.message() })]
    Refused(Box<tonic::Status>),
    #[error("GPU {name:?} not found; {known}")]
    NotFound { name: String, known: String },
    #[error("no provider {name:?}; {known}")]
    NoProvider { name: String, known: String },
    #[error("no policy {name:?}; {known}")]
    NoPolicy { name: String, known: String },
    /// Some of what was asked for was done, and is printed.
    #[error("refused: {what}; what was used before is used on")]
    NotTaken { what: String },
    #[error("not done yet, and still being carried out; what comes of it: devicectl policy list")]
    UnderWay,
    #[error(
        "NVML is busy: {hung}; nothing was let go of. Wait until it comes back (devicectl nvml status), or restart the machine"
    )]
    NvmlBusy { hung: String },
    #[error(
        "NVML is not in use: {why}. It is looked for again by itself (devicectl nvml status); attach again to have that done at once"
    )]
    NotAttached { why: String },
    #[error("not released: somebody else attached NVML meanwhile")]
    Overtaken,
    #[error("{what}; say yes when asked, or give --yes")]
    Unconfirmed { what: String },
    #[error("{name:?} may be any of {}; use more of the name", candidates.join(", "))]
    Ambiguous {
        name: String,
        candidates: Vec<String>,
    },
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    #[error("cannot write the output as {format}: {why}")]
    Encode { format: &'static str, why: String },
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Connect { .. } | Self::NotGrpc { .. } => 3,
            Self::NoAnswer { .. }
            | Self::Refused(_)
            | Self::NotFound { .. }
            | Self::NoProvider { .. }
            | Self::NoPolicy { .. }
            | Self::NotTaken { .. }
            | Self::UnderWay
            | Self::NvmlBusy { .. }
            | Self::NotAttached { .. }
            | Self::Overtaken
            | Self::Unconfirmed { .. }
            | Self::Ambiguous { .. }
            | Self::Output(_)
            | Self::Encode { .. }
            | Self::Runtime(_) => 1,
        }
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The daemon's history does not reach to the version we asked for.
    pub(crate) fn is_out_of_range(&self) -> bool {
        matches!(self, Self::Refused(status) if status.code() == Code::OutOfRange)
    }

    /// Trying again would give the same answer.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused(status) => matches!(
                status.code(),
                Code::InvalidArgument
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::Unimplemented
            ),
            Self::Connect { .. } | Self::NoAnswer { .. } => false,
            Self::NotGrpc { .. }
            | Self::NotFound { .. }
            | Self::NoProvider { .. }
            | Self::NoPolicy { .. }
            | Self::NotTaken { .. }
            | Self::UnderWay
            | Self::NvmlBusy { .. }
            | Self::NotAttached { .. }
            | Self::Overtaken
            | Self::Unconfirmed { .. }
            | Self::Ambiguous { .. }
            | Self::Output(_)
            | Self::Encode { .. }
            | Self::Runtime(_) => true,
        }
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

fn connect_help(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        "no such file; is device-api-server running? name its socket with --socket".to_owned()
    } else if kind == io::ErrorKind::ConnectionRefused {
        "nobody listens there; is device-api-server running? name its socket with --socket"
            .to_owned()
    } else if kind == io::ErrorKind::PermissionDenied {
        "permission denied; become root or a member of the socket's group".to_owned()
    } else {
        format!("{error}; name the daemon's socket with --socket")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_daemon_is_said_in_one_line() {
        let source = io::Error::from(io::ErrorKind::NotFound);
        let failure = Failure::Connect {
            socket: "/run/x.sock".into(),
            source,
        };
        assert_eq!(
            failure.to_string(),
            "cannot connect to /run/x.sock: no such file; is device-api-server running? name its socket with --socket"
        );
        assert_eq!(failure.exit_code(), 3);
    }

    #[test]
    fn the_daemons_own_words_are_kept() {
        let failure = Failure::from(tonic::Status::permission_denied("who may: root"));
        assert!(
            failure.to_string().ends_with(": who may: root"),
            "{failure}"
        );
        assert_eq!((failure.exit_code(), failure.is_final()), (1, true));
        assert!(!Failure::from(tonic::Status::unavailable("going down")).is_final());
    }
}
