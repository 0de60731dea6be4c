use std::fs;

use super::*;

/// A socket that is served, as `incoming` does it.
struct Served {
    dir: tempfile::TempDir,
    path: PathBuf,
    health: SocketsHealth,
    /// Connections as they come.
    accepted: tokio::sync::mpsc::UnboundedReceiver<UnixStream>,
    serving: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("device.sock");
        let mut kept = Kept::bind(&path).await.expect("binds");
        let health = health([&kept]);
        let (send, accepted) = tokio::sync::mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            while let Ok(stream) = kept.accept().await {
                if send.send(stream).is_err() {
                    return;
                }
            }
        });
        Self {
            dir,
            path,
            health,
            accepted,
            serving,
        }
    }

    /// Waits until its state is so.
    async fn until(&mut self, is_so: impl FnMut(&State) -> bool) -> State {
        let (_, state) = self.health.0.first_mut().expect("one");
        let state = state.wait_for(is_so).await.expect("it is served");
        state.clone()
    }

    /// Who connects to the path reaches it.
    async fn is_reached(&mut self) {
        let _client = UnixStream::connect(&self.path).await.expect("listens");
        self.accepted.recv().await.expect("it is this one");
    }
}

/// The clock runs as fast as there is nothing else to do.
#[tokio::test(start_paused = true)]
async fn a_file_that_was_removed_is_there_again() {
    let mut served = Served::start().await;
    served.is_reached().await;
    fs::remove_file(&served.path).expect("removed");
    let state = served.until(|state| state.anew == 1).await;
    assert!(state.lost.is_none(), "{state:?}");
    assert_eq!(served.health.bound_anew(), 1);
    served.is_reached().await;
    served.serving.abort();
    assert!(served.serving.await.is_err(), "aborted");
    assert!(!served.path.exists(), "the new file goes with the socket");
    let left = fs::read_dir(served.dir.path())
        .expect("a directory")
        .count();
    assert_eq!(left, 0, "nothing stays behind");
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("run/device.sock");
    let mut kept = Kept::bind(&path).await.expect("binds");
    fs::remove_dir_all(dir.path().join("run")).expect("removed");
    kept.look_after().await;
    assert!(kept.socket.lost().is_none());
    assert_eq!(health([&kept]).bound_anew(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_another_is_left_alone_for_as_long_as_it_is_there() {
    let mut served = Served::start().await;
    fs::remove_file(&served.path).expect("removed");
    fs::write(&served.path, "another's").expect("written");
    let state = served.until(|state| state.lost.is_some()).await;
    let why = state.lost.expect("said");
    assert!(why.contains("is not a socket"), "{why}");
    assert_eq!(served.health.lost().len(), 1);
    assert_eq!(
        fs::read_to_string(&served.path).expect("still there"),
        "another's"
    );
    fs::remove_file(&served.path).expect("removed");
    served
        .until(|state| state.lost.is_none() && state.anew == 1)
        .await;
    served.is_reached().await;
}

#[tokio::test]
async fn a_server_that_took_the_path_keeps_it_and_one_that_is_dead_does_not() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("device.sock");
    let mut kept = Kept::bind(&path).await.expect("binds");
    fs::remove_file(&path).expect("removed");
    let other = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    kept.look_after().await;
    let lost = health([&kept]);
    let lost = lost.lost();
    let [(named, why)] = &lost[..] else {
        panic!("{lost:?}");
    };
    assert!(*named == path && why.contains("already listening"), "{why}");
    other.accept().expect("it was asked whether it lives");
    UnixStream::connect(&path).await.expect("still the other's");

    drop(other);
    kept.look_after().await;
    assert!(kept.socket.lost().is_none());
    assert!(health([&kept]).lost().is_empty());
}

#[tokio::test]
async fn a_file_that_was_moved_back_is_found_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (path, away) = (dir.path().join("device.sock"), dir.path().join("away"));
    let mut kept = Kept::bind(&path).await.expect("binds");
    fs::rename(&path, &away).expect("moved away");
    // In a directory that can't be had it stays lost.
    fs::create_dir(&path).expect("in its place");
    kept.look_after().await;
    assert_eq!(health([&kept]).lost().len(), 1);
    fs::remove_dir(&path).expect("removed");
    fs::rename(&away, &path).expect("moved back");
    kept.look_after().await;
    let health = health([&kept]);
    assert_eq!((health.lost().len(), health.bound_anew()), (0, 0));
    let connected = UnixStream::connect(&path);
    let (connected, accepted) = tokio::join!(connected, kept.accept());
    assert!(connected.is_ok() && accepted.is_ok());
}
