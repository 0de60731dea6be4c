use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::compile::seal::sha256;

fn key(of: u8) -> Key {
    Key {
        engine: [7; 32],
        component: sha256(&[of]),
    }
}

/// Any bytes: what is in them is the engine's business.
fn code(key: &Key, bytes: &[u8]) -> Code {
    Seal::of(*key, bytes).open(key, bytes.to_vec(), 0).unwrap()
}

struct Fixture {
    root: tempfile::TempDir,
    cache: Cache,
}

impl Fixture {
    fn new(files: usize, bytes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache {
            bounds: Bounds { files, bytes },
            ..Cache::open(&root.path().join("code")).unwrap()
        };
        Self { root, cache }
    }

    fn roomy() -> Self {
        Self::new(FILES_MAX, BYTES_MAX)
    }

    fn path(&self) -> PathBuf {
        self.root.path().join("code")
    }

    fn put(&self, of: u8, bytes: &[u8]) -> Written {
        let key = key(of);
        self.cache.put(&key, &code(&key, bytes)).unwrap()
    }

    fn get(&self, of: u8) -> Option<Vec<u8>> {
        match self.cache.get(&key(of)).unwrap() {
            Found::Code(code) => Some(code.as_bytes().to_vec()),
            Found::Nothing => None,
            Found::Damaged(broken) => panic!("{broken}"),
        }
    }

    fn damaged(&self, of: u8) -> Broken {
        match self.cache.get(&key(of)).unwrap() {
            Found::Damaged(broken) => broken,
            other @ (Found::Code(_) | Found::Nothing) => panic!("{other:?}"),
        }
    }

    fn file(&self, of: u8) -> PathBuf {
        self.path().join(name(&key(of)))
    }

    /// Used so many seconds after the epoch.
    fn used(&self, of: u8, second: u64) {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
        let file = fs::File::options().write(true).open(self.file(of)).unwrap();
        file.set_modified(at).unwrap();
    }

    fn names(&self) -> Vec<String> {
        self.cache.listed().unwrap()
    }
}

#[test]
fn what_was_put_is_found_by_another_run_and_nothing_else_is() {
    let fixture = Fixture::roomy();
    assert_eq!(fixture.get(1), None);
    fixture.put(1, b"one");
    assert_eq!(fixture.put(2, b""), Written::default());
    let again = Fixture {
        cache: Cache::open(&fixture.path()).unwrap(),
        ..fixture
    };
    assert_eq!(again.get(1).unwrap(), b"one");
    assert_eq!(again.get(2).unwrap(), b"");
    assert_eq!(again.get(3), None);
    assert_eq!(again.names().len(), 2);
    let mode = fs::metadata(again.file(1)).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn each_damage_is_noticed_and_the_file_deleted() {
    let fixture = Fixture::roomy();
    fixture.put(1, b"some code");
    let whole = fs::read(fixture.file(1)).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(fixture.file(1), &damaged).unwrap();
        fixture.damaged(1);
        assert!(!fixture.file(1).exists(), "byte {at}");
        fixture.put(1, b"some code");
    }
    for end in 0..whole.len() {
        fs::write(fixture.file(1), &whole[..end]).unwrap();
        let broken = fixture.damaged(1);
        let expected = if end < HEAD_BYTES {
            Broken::Header
        } else {
            Broken::Length
        };
        assert_eq!(broken, expected, "cut after {end}");
        fixture.put(1, b"some code");
    }
    let longer = [whole.as_slice(), b"!"].concat();
    fs::write(fixture.file(1), longer).unwrap();
    assert_eq!(fixture.damaged(1), Broken::Length);
}

#[test]
fn a_file_under_another_name_is_not_what_the_name_says() {
    let fixture = Fixture::roomy();
    fixture.put(1, b"one");
    fs::rename(fixture.file(1), fixture.file(2)).unwrap();
    assert_eq!(fixture.damaged(2), Broken::Component);

    // The name has but the beginning of the engine's hash.
    let mut similar = key(3);
    similar.engine[31] ^= 1;
    fixture.cache.put(&similar, &code(&similar, b"x")).unwrap();
    assert_eq!(name(&similar), name(&key(3)));
    assert_eq!(fixture.damaged(3), Broken::Engine);
}

#[test]
fn links_folders_and_what_others_may_read_are_not_taken() {
    let fixture = Fixture::roomy();
    fixture.put(1, b"one");
    let elsewhere = fixture.root.path().join("elsewhere");
    fs::rename(fixture.file(1), &elsewhere).unwrap();
    symlink(&elsewhere, fixture.file(1)).unwrap();
    assert_eq!(fixture.damaged(1), Broken::Header);
    assert!(elsewhere.exists(), "the link went, not what it points to");

    fixture.put(1, b"one");
    fs::set_permissions(fixture.file(1), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fixture.damaged(1), Broken::Header);

    fs::create_dir(fixture.file(1)).unwrap();
    fixture.cache.get(&key(1)).unwrap_err();

    // Nobody opens a FIFO to write: a reader that waited for one would hang here.
    let fifo = fixture.file(2);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    assert_eq!(fixture.damaged(2), Broken::Header);
}

#[test]
fn the_least_recently_used_go_first_by_number() {
    let fixture = Fixture::new(3, BYTES_MAX);
    for of in 1..=3 {
        assert_eq!(fixture.put(of, b"code").evicted, 0);
        fixture.used(of, u64::from(of));
    }
    // A use counts as much as a write.
    fixture.get(1).unwrap();
    assert_eq!(fixture.put(4, b"code").evicted, 1);
    let left: Vec<u8> = (1..=4).filter(|of| fixture.get(*of).is_some()).collect();
    assert_eq!(left, [1, 3, 4]);
}

#[test]
fn and_by_size_but_never_the_new_one() {
    let file = |bytes: u64| HEAD_BYTES as u64 + bytes;
    let fixture = Fixture::new(FILES_MAX, file(100) + file(10));
    fixture.put(1, &[0; 100]);
    fixture.used(1, 1);
    fixture.put(2, &[0; 10]);
    fixture.used(2, 2);
    assert_eq!(fixture.put(3, &[0; 10]).evicted, 1);
    assert_eq!(fixture.get(1), None);
    // As large as all of it: the others go.
    let most = usize::try_from(fixture.cache.bounds.bytes).unwrap() - HEAD_BYTES;
    assert_eq!(fixture.put(4, &vec![0; most]).evicted, 2);
    assert_eq!(fixture.get(4).unwrap().len(), most);
    // Larger: nobody goes, it is not kept.
    assert_eq!(fixture.put(5, &vec![0; most + 1]).evicted, 0);
    assert_eq!((fixture.get(5), fixture.names().len()), (None, 1));
}

#[test]
fn leftovers_go_and_what_is_not_ours_stays() {
    let fixture = Fixture::roomy();
    fixture.put(1, b"one");
    let foreign = ["notes.txt", "x-y.tmp", "abc.code", "12-.tmp"];
    for name in foreign.iter().chain(&["4711-3.tmp", "1-0.tmp"]) {
        fs::write(fixture.path().join(name), "left").unwrap();
    }
    let cache = Cache::open(&fixture.path()).unwrap();
    let mut names = cache.listed().unwrap();
    names.sort_unstable();
    let mut expected = foreign.map(str::to_owned).to_vec();
    expected.push(name(&key(1)));
    expected.sort_unstable();
    assert_eq!(names, expected);

    // Nor are they counted, or deleted, when room is made.
    let cache = Cache {
        bounds: Bounds {
            files: 1,
            bytes: 1000,
        },
        ..cache
    };
    let two = key(2);
    assert_eq!(cache.put(&two, &code(&two, b"two")).unwrap().evicted, 1);
    assert_eq!(cache.listed().unwrap().len(), foreign.len() + 1);
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    let fixture = Fixture::roomy();
    // What is to be replaced can't be: a directory is in its place.
    fs::create_dir(fixture.file(1)).unwrap();
    let one = key(1);
    fixture.cache.put(&one, &code(&one, b"one")).unwrap_err();
    assert_eq!(fixture.names(), [name(&one)]);
}
