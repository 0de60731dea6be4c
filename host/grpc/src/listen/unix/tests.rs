use super::super::PlainTcp;
use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").permissions().mode() & 0o777
}

#[tokio::test]
async fn p4_a_missing_directory_is_made_and_modes_are_set() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("a/b/device.sock");
    let socket = UnixSocket::bind(&path).await.expect("binds");
    assert_eq!((mode(&path), mode(&dir.path().join("a/b"))), (0o660, 0o750));
    UnixStream::connect(&path).await.expect("listens");
    drop(socket);
    assert!(!path.exists(), "the file goes with the socket");
}

#[tokio::test]
async fn a_stale_socket_is_taken_over() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("device.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    assert!(path.exists(), "std leaves the file behind");
    let _socket = UnixSocket::bind(&path).await.expect("takes over");
    UnixStream::connect(&path).await.expect("listens");
}

#[tokio::test]
async fn a_live_server_is_named_and_unharmed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("device.sock");
    let live = UnixSocket::bind(&path).await.expect("binds");
    let error = UnixSocket::bind(&path).await.expect_err("refused");
    assert!(
        matches!(&error, BindError::Live { path: named } if *named == path),
        "{error}"
    );
    live.listener().accept().await.expect("the probe arrives");
    UnixStream::connect(&path).await.expect("still listens");
}

#[tokio::test]
async fn what_is_no_socket_is_never_deleted() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "precious").expect("written");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).expect("linked");
    for path in [&file, &link, &dir.path().to_owned()] {
        let error = UnixSocket::bind(path).await.expect_err("refused");
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
    assert!(fs::symlink_metadata(&link).is_ok());
}

#[tokio::test]
async fn a_path_is_as_long_as_the_system_allows_and_no_longer() {
    let dir = tempfile::tempdir().expect("tempdir");
    let room = SOCKET_PATH_BYTES_MAX - dir.path().as_os_str().len() - 1;
    UnixSocket::bind(&dir.path().join("s".repeat(room)))
        .await
        .expect("fits");
    let error = UnixSocket::bind(&dir.path().join("s".repeat(room + 1)))
        .await
        .expect_err("too long");
    assert!(
        matches!(error, BindError::PathTooLong { len: 108, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_is_not_ours_any_more_is_left_alone() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("device.sock");
    let socket = UnixSocket::bind(&path).await.expect("binds");
    fs::rename(&path, dir.path().join("moved")).expect("moved away");
    fs::write(&path, "another's").expect("written");
    drop(socket);
    assert_eq!(fs::read_to_string(&path).expect("still there"), "another's");
}

#[tokio::test]
async fn two_that_start_at_once_take_turns() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("device.sock");
    let held = Lock::take(dir.path(), &path).expect("first");
    let error = UnixSocket::bind(&path).await.expect_err("second");
    assert!(matches!(error, BindError::Busy { .. }), "{error}");
    let another = dir.path().join("other.sock");
    UnixSocket::bind(&another).await.expect("another socket");
    drop(held);
    let socket = UnixSocket::bind(&path).await.expect("binds");
    let left: Vec<_> = fs::read_dir(dir.path()).expect("a directory").collect();
    assert_eq!(left.len(), 1, "no lock stays behind: {left:?}");
    drop(socket);
}

#[tokio::test]
async fn who_only_reads_the_directory_keeps_nobody_from_starting() {
    let dir = tempfile::tempdir().expect("tempdir");
    let reader = fs::File::open(dir.path()).expect("opened");
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&reader, lock).expect("locked");
    let path = dir.path().join("device.sock");
    let stale = dir.path().join(".device.sock.lock");
    fs::write(&stale, "").expect("of one that was killed");
    fs::set_permissions(&stale, Permissions::from_mode(0o644)).expect("set");
    let held = Lock::take(dir.path(), &path).expect("taken");
    assert_eq!(mode(&stale), 0o600, "nobody else opens it");
    drop(held);
    UnixSocket::bind(&path).await.expect("binds");
}

#[tokio::test]
async fn p4_a_lock_that_is_not_ours_is_named() {
    let dir = tempfile::tempdir().expect("tempdir");
    let lock = dir.path().join(".device.sock.lock");
    std::os::unix::fs::symlink("/etc/passwd", &lock).expect("linked");
    let error = UnixSocket::bind(&dir.path().join("device.sock")).await;
    let error = error.expect_err("refused");
    assert!(
        matches!(&error, BindError::Lock { lock: named, .. } if *named == lock),
        "{error}"
    );
}

#[tokio::test]
async fn p4_a_directory_in_which_others_write_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("device.sock");
    for (mode, fine) in [
        (0o777, false),
        (0o770, false),
        (0o702, false),
        (0o2775, false),
        (0o1777, true),
        (0o755, true),
        (0o700, true),
    ] {
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).expect("set");
        match UnixSocket::bind(&path).await {
            Ok(_) => assert!(fine, "{mode:o}"),
            Err(error) => {
                assert!(!fine, "{mode:o}: {error}");
                let says = format!("mode {mode:04o}");
                assert!(error.to_string().contains(&says), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn messages_are_one_line_and_name_the_flag() {
    let address = |text: &str| text.parse().expect("address");
    let taken = super::super::tcp::bind(address("127.0.0.1:0"), false, PlainTcp::Loopback)
        .await
        .expect("binds");
    let errors = [
        super::super::tcp::bind(taken.1, false, PlainTcp::Loopback)
            .await
            .expect_err("in use"),
        super::super::tcp::bind(address("192.0.2.1:0"), false, PlainTcp::Loopback)
            .await
            .expect_err("without TLS"),
        super::super::tcp::bind(address("192.0.2.1:0"), true, PlainTcp::Loopback)
            .await
            .expect_err("not ours"),
        UnixSocket::bind(Path::new("/")).await.expect_err("no file"),
        UnixSocket::bind(Path::new("/proc/none/device.sock"))
            .await
            .expect_err("no directory"),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        assert!(
            text.contains("--grpc-address") || text.contains("--unix-socket"),
            "{text}"
        );
    }
}
