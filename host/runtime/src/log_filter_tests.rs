use std::io::Write;

use tracing_subscriber::reload;

use super::*;

fn started(verbose: u8, variable: Option<&str>) -> Result<String, String> {
    at_start(verbose, variable.map(OsString::from))
        .map(|directives| directives.text)
        .map_err(|error| error.to_string())
}

#[test]
fn verbosity_beats_the_variable_and_a_wrong_variable_is_refused() {
    let default = "warn,audit=info,policy=info,device_api=info";
    assert_eq!(started(0, None).as_deref(), Ok(default));
    for empty in ["", " ", ",\n"] {
        assert_eq!(started(0, Some(empty)).as_deref(), Ok(default));
    }
    assert_eq!(
        started(1, Some("error")).as_deref(),
        Ok("warn,audit=info,policy=debug,device_api=debug")
    );
    assert_eq!(
        started(9, None).as_deref(),
        Ok("info,audit=info,policy=debug,device_api=trace")
    );
    for (wrong, says) in [
        ("device_api=loud", "expected as in"),
        ("dbug", "\"dbug\" is no level"),
        ("info,hyper", "\"hyper\" is no level"),
        ("audit", "\"audit\" is no level"),
        ("warn,audit =info", "white space"),
    ] {
        let error = started(0, Some(wrong)).expect_err(wrong);
        assert!(
            error.contains("RUST_LOG") && error.contains(wrong) && error.contains(says),
            "{error}"
        );
    }
}

#[test]
fn the_audit_log_is_silenced_by_its_name_alone() {
    #[track_caller]
    fn check(variable: &str, expected: &str) {
        assert_eq!(started(0, Some(variable)).as_deref(), Ok(expected));
    }
    check("trace", "trace,audit=info");
    check("error", "error,audit=info");
    check("off", "off,audit=info");
    check("warn,auditor=error", "warn,auditor=error,audit=info");
    // What stands in a file of variables, or in a manifest.
    check("info,", "info,audit=info");
    check("info\n", "info,audit=info");
    check(
        " info, device_api=debug",
        "info,device_api=debug,audit=info",
    );
    check("3", "3,audit=info");
    check(
        "off,device_api_nvml,policy",
        "off,device_api_nvml,policy,audit=info",
    );
    check("audit=off", "audit=off");
    check("error,audit=warn", "error,audit=warn");
    // Of the lines without that field it says nothing.
    check(
        "error,audit[{identity}]=trace",
        "error,audit[{identity}]=trace,audit=info",
    );
}

#[test]
fn a_level_is_for_the_daemon_and_its_policies_and_a_filter_is_taken_as_it_stands() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let audit = "audit=info";
        let directives = asked(text, audit).map(|directives| directives.text);
        assert_eq!(directives, Ok(format!("{expected},{audit}")));
    }
    check("info", "warn,policy=info,device_api=info");
    check(" DEBUG ", "warn,policy=debug,device_api=debug");
    check("trace", "info,policy=trace,device_api=trace");
    check("error", "error,policy=error,device_api=error");
    check("off", "off,policy=off,device_api=off");
    check("info, device_api_nvml=debug", "info,device_api_nvml=debug");
    check("warn,policy=off", "warn,policy=off");
    check("[{gpu=GPU-1}]=trace", "[{gpu=GPU-1}]=trace");
    check(
        "device_api_grpc::audit=debug",
        "device_api_grpc::audit=debug",
    );
}

#[test]
fn what_is_no_filter_is_refused_and_says_what_is_one() {
    #[track_caller]
    fn check(text: &str, says: &str) {
        let why = asked(text, "audit=info").expect_err("refused");
        assert!(why.contains(says), "{text}: {why}");
    }
    check("dbug", "\"dbug\" is no level; expected one of off, error");
    check("info,nvml", "\"nvml\" is no level");
    check("info,,debug", "a comma too many");
    check(",", "a comma too many");
    check("device_api=loud", "expected a level");
    check("device_api=debug=info", "expected a level");
    check("[{", "expected a level");
    for audit in [
        "audit=off",
        "info, audit=off",
        "audit",
        "audit[{identity}]=off",
        "audit =trace",
    ] {
        check(audit, "the audit log is not turned on or off here");
    }
}

/// What a log with a filter shows, as its lines are written.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Of one run of `write`, with a filter that can be changed in it.
    fn of(at_start: &str, write: impl FnOnce(&Arc<LogControl>)) -> String {
        let lines = Self::default();
        let to = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_env_filter(EnvFilter::new(at_start))
            .with_writer(move || to.clone())
            .with_filter_reloading();
        let handle: reload::Handle<_, _> = log.reload_handle();
        let swap: Swap = Box::new(move |filter| handle.reload(filter));
        let control = Arc::new(LogControl::new(at_start.to_owned(), swap));
        tracing::subscriber::with_default(log.finish(), || write(&control));
        let bytes = lines.0.lock().expect("lock").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }
}

fn change(filter: &str) -> LogChange {
    LogChange {
        filter: filter.to_owned(),
        ttl: None,
    }
}

#[test]
fn no_filter_over_the_api_takes_a_line_from_the_audit_log_nor_adds_one() {
    let filters = [
        "off",
        "error",
        "trace",
        "a=off",
        "audi=off",
        "off,aud=off",
        "[{identity}]=off",
        "[{identity=me}]=off",
        "[span]=off",
        "[span{identity}]=off",
        "auditor=off",
    ];
    for filter in filters {
        let lines = Lines::of("info,audit=info", |control| {
            control.set(&change(filter)).expect(filter);
            let span = tracing::error_span!("span", identity = "me");
            let _in_it = span.enter();
            tracing::info!(target: "audit", identity = "me", "kept");
            tracing::debug!(target: "audit", identity = "me", "never there");
        });
        assert_eq!(lines.matches("kept").count(), 1, "{filter}: {lines}");
    }
    // Whom it was taken from at the start gets it by no filter either.
    let lines = Lines::of("info,audit=off", |control| {
        control.set(&change("trace")).expect("a level");
        tracing::warn!(target: "audit", "not wanted");
        tracing::trace!(target: "device_api_x", "wanted");
    });
    assert!(
        lines.contains(" wanted") && !lines.contains("not wanted"),
        "{lines}"
    );
}

#[test]
fn however_it_was_started_the_audit_log_outlives_each_filter() {
    let verbose = (0..=3).map(|verbose| started(verbose, None));
    let by_variable = [
        "off",
        "error",
        "info",
        "trace",
        "info,",
        "warn,auditor=off",
        "info,audit[{identity}]=trace",
        "info,audit[span]=off",
        "info,device_api=debug",
        "error,audit=info",
    ];
    let by_variable = by_variable.map(|variable| started(0, Some(variable)));
    for at_start in verbose.chain(by_variable) {
        let at_start = at_start.expect("a filter");
        for filter in ["off", "error", "error,policy=off", "device_api=trace"] {
            let lines = Lines::of(&at_start, |control| {
                let write = || tracing::info!(target: "audit", identity = "me", "kept");
                write();
                control.set(&change(filter)).expect(filter);
                write();
                control.reset().expect("reset");
                write();
            });
            assert_eq!(
                lines.matches("kept").count(),
                3,
                "{at_start}, {filter}: {lines}"
            );
        }
    }
}

#[test]
fn a_filter_counts_at_once_and_until_it_is_reset() {
    let lines = Lines::of("info", |control| {
        let debug = || tracing::debug!(target: "device_api_nvml", "a step");
        debug();
        let now = control.set(&change("info,device_api_nvml=debug"));
        let now = now.expect("a filter");
        assert_eq!(
            (&*now.filter, &*now.at_start),
            ("info,device_api_nvml=debug", "info")
        );
        assert!(now.is_set);
        debug();
        let refused = control.set(&change("device_api=loud"));
        assert!(matches!(
            refused,
            Err(ApiError::Invalid {
                field: "filter",
                ..
            })
        ));
        debug();
        let now = control.reset().expect("reset");
        assert_eq!((&*now.filter, now.is_set, now.until), ("info", false, None));
        debug();
    });
    assert_eq!(lines.matches("a step").count(), 2, "{lines}");
}

#[test]
fn the_time_of_one_filter_ends_no_other() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _in_it = runtime.enter();
    let lines = Lines::of("info", |control| {
        let set = |filter: &str, ttl| {
            let change = LogChange {
                ttl,
                ..change(filter)
            };
            control.set(&change).expect("a filter")
        };
        // Ended where it was overtaken, and where it was reset, whenever its task got to run.
        let hour = Some(Duration::from_hours(1));
        assert!(set("debug", hour).until.expect("told") > system_wall_time());
        set("trace", None);
        control.end(1);
        assert!(control.shown().is_set);
        control.reset().expect("reset");
        control.end(2);
        set("debug", hour);
        control.end(3);
        assert!(!control.shown().is_set);
        tracing::debug!(target: "device_api_x", "left over");
    });
    assert_eq!(lines.matches("as at the start again").count(), 1, "{lines}");
    assert!(!lines.contains("left over"), "{lines}");
}
