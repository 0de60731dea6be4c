//! Every bound of the host, in one place, each with its reason. (What a *guest* may use is bounded
//! in `host/wasm/src/limits.rs`.)

use std::time::Duration;

/// The bounds that a site may set (`--limit NAME=VALUE`, docs/limits.md). All others below are part of
/// the contract and the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// GPUs in the store. The largest NVLink domain a node sees has 72; MIG makes 7 of each; the rest
    /// is room for names that nobody cleans up.
    pub gpus: usize,
    /// Conditions of one GPU. The two bundled policies own 22; a node has a handful of providers.
    pub conditions_per_gpu: usize,
    /// Providers known at once. One per agent on a node.
    pub providers: usize,
    /// Text of all conditions that providers have written, in bytes. What one list answers must stay below
    /// `send_bytes`, with room for the policies' conditions.
    pub condition_bytes: usize,
    /// Condition types that providers own in all: each provider's dozen, and room for what was
    /// renamed and not forgotten.
    pub condition_types: usize,
    /// How long a read waits for decisions at most, queueing included (design C3).
    pub barrier_wait: Duration,
    /// How long one policy may take to compile: an interpreter takes 8 to 17 s on an idle processor, and may get
    /// a fraction of one. What takes longer is not compiled again (design H10).
    pub compile_deadline: Duration,
    /// How long any call but a watch may take. Writes that wait for a slow disk are the longest.
    pub request_time: Duration,
    /// Changes kept for watches that resume. Each is a pointer to a GPU that the state shares until
    /// it changes again.
    pub history_events: usize,
    /// Changes that an exact watch may be behind before it is ended (design W2).
    pub exact_events: usize,
    /// How often an idle watch is told the newest version (design W3).
    pub bookmark_interval: Duration,
    /// Watch streams in all, and on one connection: below HTTP/2's streams of a connection, so that
    /// unary calls get through (design W4).
    pub watches: usize,
    pub watches_per_connection: usize,
    pub streams_per_connection: u32,
    /// Connections on all listeners: as many as there may be watches, since a client that watches
    /// needs but one. Fewer where the process may not open as many files.
    pub connections: usize,
    /// gRPC message sizes: wire.md's, which deployed clients assume.
    pub receive_bytes: usize,
    pub send_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            gpus: 1024,
            conditions_per_gpu: 64,
            providers: 64,
            condition_bytes: 8 * 1024 * 1024,
            condition_types: 1024,
            barrier_wait: Duration::from_millis(50),
            compile_deadline: Duration::from_mins(2),
            request_time: Duration::from_secs(30),
            history_events: 2048,
            exact_events: 1024,
            bookmark_interval: Duration::from_secs(30),
            watches: 4096,
            watches_per_connection: 200,
            streams_per_connection: 250,
            connections: 4096,
            receive_bytes: 4 * 1024 * 1024,
            send_bytes: 16 * 1024 * 1024,
        }
    }
}

/// Length of an object name, namespace or condition type: what Kubernetes allows for a DNS name.
pub const NAME_BYTES_MAX: usize = 253;

/// Length of a reason. It becomes a metric label.
pub const REASON_BYTES_MAX: usize = 128;

/// Length of a condition's message: one screen.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// Length of one piece of raw evidence (design: at most 1 KiB). The longest line in
/// `data/xid-kmsg-samples.tsv` is a quarter of it.
pub const EVIDENCE_BYTES_MAX: usize = 1024;

/// Pieces of evidence kept with one condition: one per source, and the first few repeats.
pub const EVIDENCE_PER_CONDITION_MAX: usize = 4;

/// Attributes of one signal.
pub const ATTRS_PER_SIGNAL_MAX: usize = 32;

/// How long the driver may be let go of: a driver upgrade with its reboot-less reload takes minutes; who
/// forgets to attach again has a watched node back within the day.
pub const RELEASE_MAX: Duration = Duration::from_hours(24);

/// How long a filter of the log that an operator set may hold: who looks into something does so within a day, and
/// a level of debug that was forgotten fills no disk for longer.
pub const LOG_FILTER_TTL_MAX: Duration = Duration::from_hours(24);

/// Length of such a filter: some forty directives, more than the daemon has crates.
pub const LOG_FILTER_BYTES_MAX: usize = 1024;

/// How long an attach waits until NVML is in use, or can't be; never longer than most of `request-time`, so that it is
/// answered. GPUs without persistence mode wake for some two seconds each, one after the other, and a board has
/// eight.
pub const ATTACH_WAIT_MAX: Duration = Duration::from_secs(20);

/// How soon an XID 45 follows the fault that it cleans up after. The vendor's catalogue calls it "preemptive
/// cleanup, due to previous errors"; channels are torn down as their processes die, which takes seconds.
pub const CLEANUP_WINDOW: Duration = Duration::from_secs(10);

/// How soon a recovery action is asked for after the XID that it is on account of. The vendor's catalogue has XID 154
/// "always expected to be seen with another Xid"; field 230 is read each second, and later where a call hangs until
/// the watchdog goes on without it.
pub const RECOVERY_WINDOW: Duration = Duration::from_secs(10);

/// Sources that tell of one incident, and conditions that one is behind: past it the rest is counted only.
pub const ACCOUNTS_PER_INCIDENT_MAX: usize = 8;
pub const VERDICTS_PER_INCIDENT_MAX: usize = 32;

/// Readings of one GPU whose incidents are told apart: twice those of docs/readings.md.
pub const READINGS_PER_GPU_MAX: usize = 128;

/// A condition that has become a problem again more often than this within the window, each time after its
/// policy had called it ok, flaps: its next ok is held back until it has been ok for so long. Three in a
/// quarter of an hour is what a reading at its threshold does; a repair takes longer than that, and so does
/// whoever drains a node and takes it back.
pub const FLAPS_MAX: usize = 3;
pub const FLAP_WINDOW: Duration = Duration::from_mins(15);
pub const FLAP_HOLD: Duration = INCIDENT_QUIET;

/// Incidents that are kept once they are closed, for `devicectl incidents`: the newest of all GPUs.
pub const INCIDENTS_CLOSED_MAX: usize = 512;

/// Incidents in one answer. One may have 36 KiB (each account its evidence, each verdict its policy's digest), so that
/// this many stay below the 16 MiB that are sent at most; who wants more reads on.
pub const INCIDENTS_LISTED_MAX: usize = 256;

/// Labels of one GPU, and the length of a label's value (Kubernetes' own bound).
pub const LABELS_MAX: usize = 64;
pub const LABEL_VALUE_BYTES_MAX: usize = 63;

/// Distinct signals of one GPU that wait to be judged. Repeats fold into one, so a storm of a few
/// codes never fills it; past it the fallback is applied at once and the overflow counted.
pub const SIGNALS_PENDING_PER_GPU_MAX: usize = 256;

/// Signals handed to a policy in one call. Bounds one call's share of the deadline.
pub const SIGNALS_PER_CALL_MAX: usize = 64;

/// Faults of one GPU that stand without a verdict, each with what is assumed of it. The worst counts, so
/// past this the mildest makes room.
pub const FALLBACKS_PER_GPU_MAX: usize = 64;

/// Signals of one GPU that one policy failed on and is asked about again. A policy that fails on more
/// different ones fails on all; past this what it is not asked again keeps its fallback.
pub const FAILED_PER_POLICY_MAX: usize = 64;

/// Observations kept while nobody knows their device yet (kernel log read before NVML is up).
pub const UNATTRIBUTED_MAX: usize = 1024;

/// Lines of the log about one thing (the health of one GPU, codes in no catalogue, GPUs not known yet) in a [`LOG_WINDOW`]: what
/// flaps, or is made up, is to fill no disk, and the first minute of a fault is to be read whole.
pub const LOG_LINES_MAX: u32 = 20;
pub const LOG_WINDOW: Duration = Duration::from_mins(1);

/// Different errors of NVSwitches that are kept while it is not known which GPUs are behind them: 4 to 12 switches of a
/// node, each with a few at once.
pub const SXIDS_HELD_MAX: usize = 256;

/// How long after 48 a 63 or 94 may come for it to be a contained error (design H8).
pub const CONTAINMENT_WINDOW: Duration = Duration::from_millis(100);

/// A quiet incident ends after this (design section 1).
pub const INCIDENT_QUIET: Duration = Duration::from_mins(10);

/// Open incidents; past it the longest quiet one ends early. 172 codes on a few GPUs at once is
/// already a catastrophe. All of them, and those that are kept once they are closed, are in the store: some KiB each.
pub const INCIDENTS_MAX: usize = 4096;

/// Timers of one policy for one GPU.
pub const WAKES_PER_POLICY_MAX: usize = 32;
/// A timer shorter than this is raised to it (the WIT contract says so).
pub const WAKE_MIN: Duration = Duration::from_secs(1);
/// A timer longer than this is cut to it: 30 days, beyond any window a policy counts in.
pub const WAKE_MAX: Duration = Duration::from_hours(30 * 24);

/// State of one policy for one GPU: keys, and bytes of keys and values together.
pub const STATE_KEYS_MAX: usize = 128;
pub const STATE_BYTES_MAX: usize = 64 * 1024;

/// Verdicts in one decision: each owned type a few times.
pub const VERDICTS_PER_DECISION_MAX: usize = 64;
/// Ways out of one problem.
pub const CLEARS_PER_VERDICT_MAX: usize = 8;
/// Condition types and reasons that one policy may declare.
pub const OWNED_TYPES_MAX: usize = 32;
pub const REASONS_PER_TYPE_MAX: usize = 64;
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Evaluations that wait for a policy. The pipeline has one in flight for each GPU, so that of 1,024
/// GPUs each may have a fault at once; past it, the fallback and a later try.
pub const EVALUATIONS_WAITING_MAX: usize = 1024;
/// Devices that NVML is asked about: what a library of a later day, or a broken one, may claim.
pub const NVML_DEVICES_MAX: usize = 1024;
/// Policies loaded at once; each has a thread and an instance.
pub const POLICIES_MAX: usize = 16;

/// Bytes of a policy directory's files that are held at once while a set is taken up, the bundled policies
/// apart. As much as one file may have at the most, or seven Python guests of 18 MB; and half of a container of
/// 256 MiB.
pub const POLICY_SET_BYTES_MAX: usize = 128 << 20;
/// Entries of a policy directory, whatever they are: a wrong directory must not cost a long walk.
pub const POLICY_DIRECTORY_ENTRIES_MAX: usize = 1024;
/// Size of policies.yaml. A ConfigMap holds 1 MiB in all; sixteen policies with a page of configuration each have
/// some 64 KiB.
pub const POLICIES_FILE_BYTES_MAX: usize = 256 * 1024;
/// Values in it, those counted that anchors repeat: plain text of that size hardly has as many, and a file that
/// unfolds to more is none that a person wrote.
pub const POLICIES_FILE_VALUES_MAX: usize = 65_536;
/// Levels of it: `config` has room for a deep one.
pub const POLICIES_FILE_DEPTH_MAX: usize = 64;

/// Signals of one GPU kept to be judged again at a swap, and for the verdict diff (design H6, H9). Repeats
/// fold, so this is that many different faults. With samples shared it is some 300 KiB a GPU, and 0.8 MiB
/// where each has all the evidence and attributes that one may have.
pub const JOURNAL_SIGNALS_PER_GPU_MAX: usize = 256;
/// Memories of one GPU kept for policies, and versions of them, that are not asked now: for their return.
/// As many as seats, and an earlier state schema of each; past it the one put away first is dropped.
pub const ABSENT_MEMORIES_PER_GPU_MAX: usize = 2 * POLICIES_MAX;
/// Such a memory is dropped when its policy has not returned for so long, in which the daemon ran: each of its
/// timers is due by then, and no window that a policy counts in goes back as far.
pub const ABSENT_MEMORY_AGE_MAX: Duration = WAKE_MAX;
/// Policies that `PolicyReady` tells of as not asked: as many as a directory offers beyond the seats.
pub const UNASKED_POLICIES_MAX: usize = 2 * POLICIES_MAX;
/// The journal forgets what is older: the longest window in the vendor's guidance is a day.
pub const JOURNAL_AGE_MAX: Duration = Duration::from_hours(24);
/// Lines of a verdict diff: the catalogue's 172 codes, and each GPU of a node.
pub const VERDICT_DIFF_LINES_MAX: usize = 256;
/// GPUs that a new version may make newly Unhealthy without being held (design H9).
pub const NEWLY_UNHEALTHY_MAX: usize = 1;
/// Latest failures, disagreements and quarantined versions kept for each policy.
pub const POLICY_RECORDS_MAX: usize = 32;

/// Length of the reason for which an operator quarantines or pauses a policy: a sentence and a ticket's
/// address. It stands in the audit log and in lists.
pub const POLICY_REASON_BYTES_MAX: usize = 512;
/// Digits of a policy's digest that say which version is meant: as many as tables show.
pub const POLICY_DIGEST_DIGITS_MIN: usize = 12;
/// Policies that one list shows: those that are asked, and as many that are not.
pub const POLICIES_LISTED_MAX: usize = POLICIES_MAX + UNASKED_POLICIES_MAX;

/// Leases a provider may ask for.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
pub const LEASE_MAX: Duration = Duration::from_hours(24);
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);

/// Requirements in one selector: more than anyone writes by hand.
pub const SELECTOR_TERMS_MAX: usize = 32;
/// Values in one `in (…)` of a selector.
pub const SELECTOR_VALUES_MAX: usize = 64;
/// Length of a selector as text.
pub const SELECTOR_BYTES_MAX: usize = 4096;

/// Versions reserved at once (design C5): what a run may give out before the store must be asked
/// again, which it is when half is used: some 500,000 writes in the time of one commit. Versions follow
/// the Unix time in microseconds, so a daemon that is restarted more than once a second gets ahead of it.
pub const VERSIONS_RESERVED: u64 = 1 << 20;

/// Numbers of signals reserved at once, as versions are: half of them last for the time of one commit, also in a storm.
pub const SIGNALS_RESERVED: u64 = 1 << 20;
/// The same of incidents. Half of them are more than are begun in the second that a busy disk takes; a daemon that is
/// killed leaves a gap of that size at the most, one that is stopped none.
pub const INCIDENTS_RESERVED: u64 = 1 << 16;

/// Text of the changes kept for watches that resume, all together. Each change of a GPU keeps its own
/// conditions, and once it was sent their encoding; without a bound in bytes one chatty provider with
/// long messages would fill the node's memory.
pub const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// `sun_path` of a Unix socket address on Linux, its terminating NUL left out.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
