//! Serves the control socket: a thread that accepts, and one for each connection.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Answer, LINE_MAX, act};
use crate::environment::SOCKET;
use crate::sim::Sim;

/// A demo, a test and a person or two.
const CONNECTIONS_MAX: usize = 32;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("{SOCKET}={} is served by another process: give this one its own path", .0.display())]
    Taken(PathBuf),
    #[error("{SOCKET}={} is a file that is no socket: give another path", .0.display())]
    NoSocket(PathBuf),
    #[error("can't listen on {SOCKET}={} ({source}): give a short path in a folder you may write to", path.display())]
    Bind { path: PathBuf, source: io::Error },
    #[error("can't start the thread that serves {SOCKET} ({0}): see the limit on threads")]
    Thread(io::Error),
}

/// Listens, in the place of a socket that nobody serves any more.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |source| ServeError::Bind {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ServeError::NoSocket(path.to_owned()));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(ServeError::Taken(path.to_owned()));
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Who may write here may break every GPU that the daemon sees.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves until the process ends: commands have to get through while the driver is unloaded.
pub(crate) fn spawn(sim: &'static Sim, listener: UnixListener) -> Result<(), ServeError> {
    let accept = move || {
        static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);
        for stream in listener.incoming() {
            // Out of file descriptors, mostly: the client sees its connection end.
            let Ok(stream) = stream else { continue };
            if CONNECTIONS.load(Ordering::Relaxed) == CONNECTIONS_MAX {
                let _ = answer(
                    &stream,
                    &act::refusal(format!("{CONNECTIONS_MAX} clients already")),
                );
                continue;
            }
            CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            let serve = move || {
                // A client that went away is no error of ours.
                let _ = converse(sim, &stream);
                CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
            };
            if thread::Builder::new()
                .name("nvml-sim-client".to_owned())
                .spawn(serve)
                .is_err()
            {
                CONNECTIONS.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    let thread = thread::Builder::new()
        .name("nvml-sim-control".to_owned())
        .spawn(accept);
    thread.map(drop).map_err(ServeError::Thread)
}

fn converse(sim: &Sim, stream: &UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with('\n') {
            return answer(
                stream,
                &act::refusal(format!("a line is at most {LINE_MAX} bytes")),
            );
        }
        let done = match serde_json::from_str(&line) {
            Ok(request) => act::act(sim, request),
            Err(error) => act::refusal(format!("not a command: {error}")),
        };
        answer(stream, &done)?;
    }
}

fn answer(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}
