//! What of it is kept, where, and what is made of what others left there.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use device_api_wasm::{CompilerError, Engine};

use crate::house::{House, load, small};

#[test]
fn h10_a_component_is_compiled_once_and_then_taken_from_the_cache() {
    let house = House::new();
    let compiler = house.compiler();
    let cold = load(&compiler, &small(1)).unwrap();
    let counters = compiler.counters();
    assert_eq!((counters.compiled, counters.cache_hits), (1, 0));
    assert!(counters.last_memory_peak_bytes > 1 << 20, "{counters:?}");
    assert!(!counters.last_wall.is_zero());

    let warm = load(&compiler, &small(1)).unwrap();
    // And by the next run, which has an engine of its own.
    let next = House {
        engine: Engine::new().unwrap(),
        ..house
    };
    let restarted = next.compiler();
    let again = load(&restarted, &small(1)).unwrap();
    assert_eq!(
        (cold.digest(), cold.digest()),
        (warm.digest(), again.digest())
    );
    let counters = restarted.counters();
    assert_eq!((counters.compiled, counters.cache_hits), (0, 1));

    load(&restarted, &small(2)).unwrap();
    assert_eq!(restarted.counters().compiled, 1);
    assert_eq!(next.cached().len(), 2);
}

#[test]
fn without_a_cache_each_load_compiles() {
    let mut house = House::new();
    house.settings.cache_dir = None;
    let compiler = house.compiler();
    for _ in 0..2 {
        load(&compiler, &small(1)).unwrap();
    }
    assert_eq!(compiler.counters().compiled, 2);
    assert!(!house.cache().exists());
}

#[test]
fn h10_a_damaged_file_is_deleted_and_compiled_anew() {
    let house = House::new();
    load(&house.compiler(), &small(1)).unwrap();
    let file = house.cached().pop().unwrap();
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    // The engine that it is for, which is part of its name too.
    let mut other_engine = whole.clone();
    other_engine[20] ^= 1;
    for damaged in [&flipped, &other_engine, &whole[..whole.len() - 1].to_vec()] {
        fs::write(&file, damaged).unwrap();
        let compiler = house.compiler();
        load(&compiler, &small(1)).unwrap();
        let counters = compiler.counters();
        assert_eq!((counters.compiled, counters.cache_damaged), (1, 1));
        assert_eq!(fs::read(&file).unwrap(), whole, "the same code again");
    }
}

#[test]
fn h10_a_directory_that_others_may_enter_is_refused() {
    let house = House::new();
    house.compiler();
    assert_eq!(fs::metadata(house.cache()).unwrap().mode() & 0o7777, 0o700);
    for mode in [0o701, 0o750, 0o755, 0o777, 0o1700] {
        fs::set_permissions(house.cache(), Permissions::from_mode(mode)).unwrap();
        let error = house.open().unwrap_err();
        assert!(
            matches!(error, CompilerError::CacheMode { mode: of, .. } if of == mode),
            "{error:?}"
        );
        assert!(
            error.to_string().contains(&format!("{mode:04o}")),
            "{error}"
        );
    }
    // Without it, all else works.
    let mut without = House::new();
    without.settings.cache_dir = None;
    load(&without.compiler(), &small(1)).unwrap();
}

#[test]
fn h10_a_directory_of_someone_else_is_refused() {
    let mut house = House::new();
    let own = rustix::process::geteuid().as_raw();
    let owner = if own == 0 {
        // Root may give it away; others look at root's.
        house.compiler();
        std::os::unix::fs::chown(house.cache(), Some(4711), None).unwrap();
        4711
    } else {
        house.settings.cache_dir = Some("/usr".into());
        0
    };
    let error = house.open().unwrap_err();
    assert!(
        matches!(error, CompilerError::CacheOwner { owner: of, own: than, .. } if (of, than) == (owner, own)),
        "{error:?}"
    );
}

#[test]
fn h10_a_link_or_a_file_in_its_place_is_refused() {
    let house = House::new();
    let elsewhere = house.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o700)).unwrap();
    symlink(&elsewhere, house.cache()).unwrap();
    let error = house.open().unwrap_err();
    assert!(
        matches!(error, CompilerError::CacheKind { .. }),
        "{error:?}"
    );

    fs::remove_file(house.cache()).unwrap();
    fs::write(house.cache(), "").unwrap();
    let error = house.open().unwrap_err();
    assert!(
        matches!(error, CompilerError::CacheKind { .. }),
        "{error:?}"
    );
}

#[test]
fn a_directory_with_no_place_to_be_or_full_of_other_things_is_refused() {
    let mut house = House::new();
    house.settings.cache_dir = Some(house.folder.path().join("none").join("code"));
    let error = house.open().unwrap_err();
    assert!(
        matches!(error, CompilerError::CacheCreate { .. }),
        "{error:?}"
    );

    let house = House::new();
    house.compiler();
    for number in 0..1025 {
        fs::write(house.cache().join(number.to_string()), "").unwrap();
    }
    let error = house.open().unwrap_err();
    assert!(
        matches!(error, CompilerError::CacheCrowded { .. }),
        "{error:?}"
    );
}

/// A cache that can't be written costs time, never a policy.
#[test]
fn a_cache_that_fails_is_told_of_and_got_over() {
    let house = House::new();
    let compiler = house.compiler();
    fs::remove_dir(house.cache()).unwrap();
    load(&compiler, &small(1)).unwrap();
    load(&compiler, &small(1)).unwrap();
    let counters = compiler.counters();
    assert_eq!((counters.compiled, counters.cache_errors), (2, 2));
}
