//! What a process may answer, or do instead: small programs in the place of the compiler.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::*;
use crate::compile::seal::{Seal, sha256};

const DEADLINE: Duration = Duration::from_secs(20);

struct Fixture {
    folder: tempfile::TempDir,
    component: Vec<u8>,
    engine: Engine,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            component: wat::parse_str("(component (core module (func nop)))").unwrap(),
            engine: Engine::new().unwrap(),
        }
    }

    fn key(&self) -> Key {
        Key {
            engine: compatibility(self.engine.wasmtime()),
            component: sha256(&self.component),
        }
    }

    fn code(&self) -> Vec<u8> {
        let engine = self.engine.wasmtime();
        engine.precompile_component(&self.component).unwrap()
    }

    fn compiler(&self, program: &str, args: &[&str], deadline: Duration) -> Compiler {
        let settings = CompilerSettings {
            worker: Worker {
                program: program.into(),
                args: args.iter().map(Into::into).collect(),
            },
            cache_dir: Some(self.folder.path().join("code")),
            memory_bytes_max: 256 << 20,
            deadline,
        };
        Compiler::new(self.engine.clone(), settings).unwrap()
    }

    /// Of a process that answers these bytes, whatever it is asked, and what is in the cache then.
    fn answered(&self, bytes: &[u8]) -> (Result<Loaded, LoadError>, usize) {
        let file = self.folder.path().join("answer");
        fs::write(&file, bytes).unwrap();
        let compiler = self.compiler("/bin/cat", &[file.to_str().unwrap()], DEADLINE);
        let loaded = compiler.load(&self.component, Limits::default());
        let cached = fs::read_dir(self.folder.path().join("code")).unwrap();
        (loaded, cached.count())
    }

    fn shell(&self, script: &str) -> LoadError {
        let compiler = self.compiler("/bin/sh", &["-c", script], DEADLINE);
        compiler
            .load(&self.component, Limits::default())
            .unwrap_err()
    }
}

fn frame(key: Key, status: Status, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::answer(&mut bytes, key, status, 1 << 20, payload).unwrap();
    bytes
}

#[test]
fn a_good_answer_is_taken_wherever_it_comes_from() {
    let fixture = Fixture::new();
    let (loaded, cached) = fixture.answered(&frame(fixture.key(), Status::Code, &fixture.code()));
    assert_eq!(
        &**loaded.unwrap().digest(),
        seal::hex(&fixture.key().component)
    );
    assert_eq!(cached, 1);
}

#[test]
fn h10_no_other_answer_is() {
    let fixture = Fixture::new();
    let (key, code) = (fixture.key(), fixture.code());
    let good = frame(key, Status::Code, &code);
    let other = |engine, component| frame(Key { engine, component }, Status::Code, &code);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut version = good.clone();
    version[8] ^= 1;
    let mut status = good.clone();
    status[12] = 99;
    let trailing = [good.as_slice(), b"!"].concat();
    for (bytes, what) in [
        (other([0; 32], key.component), "another engine"),
        (other(key.engine, [0; 32]), "another component"),
        (flipped, "its digest"),
        (version, "not of this version"),
        (status, "not of this version"),
        (trailing, "its length"),
        (vec![0; 1 << 20], "not of this version"),
        // Sealed as it should be, but no code.
        (frame(key, Status::Code, b"\x7fELF"), "ELF"),
    ] {
        let (loaded, cached) = fixture.answered(&bytes);
        let error = loaded.unwrap_err();
        assert!(matches!(error, LoadError::WorkerAnswer { .. }), "{error:?}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert_eq!(cached, 0, "{what}");
    }
}

#[test]
fn h10_an_answer_that_is_cut_off_is_none() {
    let fixture = Fixture::new();
    let good = frame(fixture.key(), Status::Code, &fixture.code());
    for end in [0, 1, 50, good.len() / 2, good.len() - 1] {
        let (loaded, cached) = fixture.answered(&good[..end]);
        let error = loaded.unwrap_err();
        assert!(matches!(error, LoadError::WorkerDied { .. }), "{error:?}");
        assert!(error.to_string().contains("exit status 0"), "{error}");
        assert_eq!(cached, 0);
    }
}

#[test]
fn h10_an_answer_that_announces_too_much_is_not_read() {
    let fixture = Fixture::new();
    for (status, bytes, max) in [
        (Status::Code, u64::MAX, 384 << 20),
        (Status::Code, (384 << 20) + 1, 384 << 20),
        (Status::Invalid, (4 << 10) + 1, 4 << 10),
    ] {
        let mut head = frame(fixture.key(), status, b"");
        let length = head.len() - size_of::<u64>();
        head[length..].copy_from_slice(&bytes.to_le_bytes());
        // More than is read of it, without an end.
        let file = fixture.folder.path().join("head");
        fs::File::create(&file).unwrap().write_all(&head).unwrap();
        let endless = format!("/bin/cat {} /dev/zero", file.display());
        let begun = Instant::now();
        let error = fixture.shell(&endless);
        assert!(
            matches!(error, LoadError::CodeTooLarge { bytes: of, max: than } if (of, than) == (bytes, max)),
            "{error:?}"
        );
        assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
    }
    let counters = fixture.compiler("/bin/cat", &["/dev/zero"], DEADLINE);
    counters
        .load(&fixture.component, Limits::default())
        .unwrap_err();
    assert_eq!(counters.counters().refused, [0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn refusals_become_what_they_are_of() {
    let fixture = Fixture::new();
    let refused = |status, words: &str| {
        fixture
            .answered(&frame(fixture.key(), status, words.as_bytes()))
            .0
            .unwrap_err()
    };
    let error = refused(Status::Invalid, "bad type");
    assert!(matches!(&error, LoadError::Invalid(source) if source.to_string() == "bad type"));
    let error = refused(Status::Panic, "oops");
    assert!(matches!(&error, LoadError::CompilerPanic { message } if message == "oops"));
    let error = refused(Status::Memory, "");
    assert!(error.to_string().contains("more than 256 MiB"), "{error}");
    // A process that could not bound itself has read no component, so it names none.
    let setup = frame(NO_KEY, Status::Setup, b"As: EPERM");
    let error = fixture.answered(&setup).0.unwrap_err();
    assert!(error.to_string().contains("(As: EPERM)"), "{error}");
}

#[test]
fn what_ends_without_an_answer_is_told_by_how_it_ended() {
    let fixture = Fixture::new();
    let died = |script: &str| {
        let error = fixture.shell(script);
        assert!(matches!(error, LoadError::WorkerDied { .. }), "{error:?}");
        error.to_string()
    };
    let text = died("kill -9 $$");
    assert!(text.contains("end with signal 9 (SIGKILL): if"), "{text}");
    let text = died("exit 3");
    assert!(text.contains("end with exit status 3: if"), "{text}");
    let text = died("printf 'first\\nsecond\\033[1m' >&2; exit 1");
    assert!(text.contains("saying first second [1m: if"), "{text}");
    // A flood of words is read to its end, and its beginning kept.
    let text = died("/usr/bin/head -c 3000000 /dev/zero >&2; exit 5");
    assert!(text.contains("exit status 5"), "{text}");
    assert!(text.len() < 4096, "{}", text.len());

    let text = "memory allocation of 12345 bytes failed";
    let error = fixture.shell(&format!("echo {text} >&2; kill -6 $$"));
    assert!(
        matches!(error, LoadError::CompileMemory { .. }),
        "{error:?}"
    );
}

/// An answer counts when the process has ended, and it has till the deadline for that.
#[test]
fn h10_what_does_not_end_is_ended_at_the_deadline() {
    let fixture = Fixture::new();
    let file = fixture.folder.path().join("answer");
    fs::write(&file, frame(fixture.key(), Status::Code, &fixture.code())).unwrap();
    let deadline = Duration::from_millis(300);
    for script in [
        "exec /bin/sleep 1000",
        "exec >&- 2>&-; exec /bin/sleep 1000",
        &format!("/bin/cat {}; exec /bin/sleep 1000", file.display()),
        "while :; do :; done",
    ] {
        let compiler = fixture.compiler("/bin/sh", &["-c", script], deadline);
        let begun = Instant::now();
        let error = compiler
            .load(&fixture.component, Limits::default())
            .unwrap_err();
        let took = begun.elapsed();
        assert!(
            matches!(error, LoadError::CompileDeadline { .. }),
            "{error:?}"
        );
        assert!(took >= deadline && took < DEADLINE, "{took:?}");
        assert!(compiler.counters().last_wall >= deadline);
    }
}

#[test]
fn h10_one_process_runs_at_a_time() {
    let fixture = Fixture::new();
    let lock = fixture.folder.path().join("lock");
    let script = format!(
        "/bin/mkdir {0} || exit 9; /bin/sleep 0.05; /bin/rmdir {0}; exit 1",
        lock.display()
    );
    let compiler = fixture.compiler("/bin/sh", &["-c", &script], DEADLINE);
    std::thread::scope(|scope| {
        let loads: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| compiler.load(&fixture.component, Limits::default())))
            .collect();
        for load in loads {
            let error = load.join().unwrap().unwrap_err();
            assert!(error.to_string().contains("exit status 1"), "{error}");
        }
    });
    assert_eq!(compiler.counters().refused, [0, 0, 0, 0, 6, 0, 0]);
}

#[test]
fn a_seal_of_a_file_is_that_of_an_answer() {
    let fixture = Fixture::new();
    let seal = Seal::of(fixture.key(), &fixture.code());
    let mut bytes = Vec::new();
    seal.put(&mut bytes);
    let answer = frame(fixture.key(), Status::Code, &fixture.code());
    assert!(answer.windows(bytes.len()).any(|window| window == bytes));
}
