use super::*;

fn order(digest: &str) -> Order {
    Order {
        digest: digest.into(),
        limits: Limits::default(),
    }
}

fn place(orders: &mut Orders, digest: &str, bytes: usize) -> LoadError {
    orders.place(order(digest), &vec![0; bytes].into())
}

fn next(orders: &mut Orders) -> String {
    let (order, _) = orders.next().expect("one that waits");
    order.digest.to_string()
}

fn drained(orders: &mut Orders) -> Vec<String> {
    std::iter::from_fn(|| orders.next().map(|(order, _)| order.digest.to_string())).collect()
}

fn too_large() -> LoadError {
    LoadError::CompileMemory { limit_bytes: 1 }
}

fn came_to(orders: &mut Orders, digest: &str, error: LoadError) {
    orders.take_in(Compiled {
        order: order(digest),
        result: Err(Arc::new(error)),
    });
}

#[test]
fn h10_who_is_needed_first_goes_first_and_of_those_the_small() {
    let mut orders = Orders::default();
    let ranks = [
        ("bundled", Rank::Bundled),
        ("good", Rank::Judged),
        ("held", Rank::Held),
    ];
    let ranks = ranks.map(|(digest, rank)| (digest.into(), rank));
    orders.was_too_much("bomb".into(), Arc::new(too_large()), false);
    orders.begin(Forget::Failures, ranks.into());
    let placed = [
        ("bomb", 1),
        ("held", 1),
        ("large", 9),
        ("good", 20),
        ("small", 2),
        ("bundled", 30),
    ];
    for (digest, bytes) in placed {
        let said = place(&mut orders, digest, bytes);
        assert!(matches!(said, LoadError::Compiling), "{said}");
    }
    // The rest may have to wait for somebody who is still to be ordered.
    assert_eq!(drained(&mut orders), ["bundled", "good"]);
    place(&mut orders, "first", 1);
    orders.end(&BTreeSet::new());
    assert_eq!(
        drained(&mut orders),
        ["first", "small", "large", "held", "bomb"]
    );
}

#[test]
fn h10_what_was_too_much_is_compiled_again_when_an_operator_asks_once() {
    let mut orders = Orders::default();
    place(&mut orders, "bomb", 1);
    assert_eq!(next(&mut orders), "bomb");
    came_to(&mut orders, "bomb", too_large());
    for forget in [Forget::Nothing, Forget::Transient] {
        orders.begin(forget, BTreeMap::new());
        let said = place(&mut orders, "bomb", 1);
        assert!(matches!(said, LoadError::Before(_)), "{said}");
    }
    orders.begin(Forget::Failures, BTreeMap::new());
    let said = place(&mut orders, "bomb", 1);
    assert!(matches!(said, LoadError::Compiling), "{said}");
    orders.end(&BTreeSet::new());
    assert_eq!(next(&mut orders), "bomb");
    came_to(&mut orders, "bomb", too_large());
    orders.begin(Forget::Failures, BTreeMap::new());
    let said = place(&mut orders, "bomb", 1);
    assert!(matches!(said, LoadError::Before(_)), "{said}");
    assert!(orders.is_idle());
}

#[test]
fn h5_what_takes_long_gives_way_to_who_had_no_turn_and_not_for_ever() {
    let mut orders = Orders::default();
    let (slow, bytes) = (order("slow"), Bytes::from(vec![0]));
    place(&mut orders, "slow", 1);
    for _ in 0..PUT_OFF_MAX {
        assert_eq!(next(&mut orders), "slow");
        assert_eq!(orders.gives_way_at(), None, "to nobody");
        place(&mut orders, "quick", 9);
        let at = orders.gives_way_at().expect("to the one that waits");
        assert!(!orders.give_way(at - Duration::from_millis(1)));
        assert!(orders.give_way(at));
        assert!(!orders.give_way(at), "told once");
        assert!(orders.over(&slow, &bytes, &Err(LoadError::PutOff)));
        assert_eq!(next(&mut orders), "quick");
        assert_eq!(orders.gives_way_at(), None, "the other had its turn");
        came_to(&mut orders, "quick", LoadError::CoreModule);
    }
    assert_eq!(next(&mut orders), "slow");
    place(&mut orders, "quick", 9);
    assert_eq!(orders.gives_way_at(), None, "often enough");
}

#[test]
fn h5_the_bundled_give_way_to_nobody_and_what_judged_not_to_what_is_new() {
    for (rank, other) in [(Rank::Bundled, Rank::Bundled), (Rank::Judged, Rank::New)] {
        let mut orders = Orders::default();
        let ranks = [("a".into(), rank), ("b".into(), other)];
        orders.begin(Forget::Nothing, ranks.into());
        orders.end(&BTreeSet::new());
        place(&mut orders, "a", 1);
        assert_eq!(next(&mut orders), "a");
        place(&mut orders, "b", 1);
        assert_eq!(orders.gives_way_at(), None);
    }
}
