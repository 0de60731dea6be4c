//! What must come of each guest. The match names all: a folder in `tests/guests/` that has no line here
//! does not compile.

use device_api_tests::hostile::Hostile;

/// What must come of a guest, as far as it is its own; what may not come of any is in `harm.rs`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// Not loaded: an error that names the file and says this.
    Refused(&'static str),
    /// Loaded, and its calls fail: in this way, and it is told in these words.
    Fails(&'static str, &'static str),
    /// Loaded, and its calls succeed: conditions of its own come, and of nobody else's.
    OwnConditions,
    /// As [`Outcome::OwnConditions`], and what they say.
    Says(&'static str),
    /// Conditions of its own, or a failure of this kind, by turns.
    Fitful(&'static str),
    /// Not like others: a test of its own, in `apart.rs`.
    Apart,
}

/// The table.
#[expect(clippy::too_many_lines, reason = "a table, a line for each guest")]
pub(crate) fn outcome(guest: Hostile) -> Outcome {
    use Hostile as H;
    use Outcome::{Apart, Fails, Fitful, OwnConditions, Refused, Says};
    match guest {
        // Time.
        H::LoopInEvaluate => Fails("deadline", "ran past its deadline of 25ms"),
        H::LoopInConfigure | H::LoopAtStart => Refused("ran past its deadline of 100ms"),
        H::LoopInRealloc | H::LoopInPostReturn | H::BulkMemory => {
            Fails("deadline", "ran past its deadline of 25ms")
        }
        H::MillionHostCalls => Fails("trap", "made more than 4096 host calls"),
        H::BrinkOfTheDeadline => Fitful("deadline"),

        // Traps.
        H::TrapAlways => Refused("these are my last words"),
        H::TrapAfterCalls => Fitful("trap"),
        H::TrapAtStart => Refused("trapped"),
        H::TrapInRealloc | H::TrapInPostReturn => Fails("trap", "unreachable"),
        H::HostCallInRealloc | H::HostCallInPostReturn => {
            Fails("trap", "cannot leave component instance")
        }
        H::DeepRecursion => Fails("trap", "used up its stack of 262144 bytes"),

        // Room.
        H::GrowMemory | H::ManyMemories => Fails("trap", "at most 16777216 are allowed"),
        H::GrowTable => Fails("trap", "at most 65536 are allowed"),
        H::HundredMemories => Refused("memory count too high"),
        H::HugeMinimumMemory => Refused("at most 16777216 are allowed"),
        H::HugeMinimumTable => Refused("at most 65536 are allowed"),
        H::ThousandsOfInstances => Refused("instances count exceeds limit"),
        H::CompileBomb => Apart,
        H::SixtyMegabytes => Refused("has more than 33554432 bytes"),

        // What it hands over.
        H::HundredMegabyteString | H::MillionVerdictsClaimed | H::PointerAstray => {
            Fails("invalid", "")
        }
        H::NoUtf8 => Fails("invalid", "utf-8"),
        H::NoSuchCase => Fails("invalid", "discriminant"),
        H::StringToTheHost | H::ReallocOutOfBounds => Fails("invalid", ""),
        H::SharedMessage => Fails("trap", "handed over more than 1048576 bytes at once"),
        H::MillionVerdicts => Fails("trap", "at most 16777216 are allowed"),
        H::TooManyVerdicts => Fails("invalid", "1000 entries, and at most 64 are allowed"),
        H::TooManyTimers => Fails(
            "invalid",
            "wakes: 10000 entries, and at most 32 are allowed",
        ),
        H::HugeMessage | H::ControlCharacters | H::UnknownWords => OwnConditions,

        // What it says.
        H::FlappingVerdicts | H::UnknownDevice => OwnConditions,
        H::EveryGpuFatal => Apart,
        H::RandomReasons => Fails("invalid", "is not one that info.owns declared"),
        H::NanAttribute => Fails("invalid", "is not a finite number"),
        H::ForeignType => Fails("invalid", "XidCriticalError"),
        H::VerdictOnReady => Fails("invalid", "Ready"),
        H::NoClears => Fails(
            "invalid",
            "a problem needs at least one event that clears it",
        ),
        H::ForeignCause => Fails(
            "invalid",
            "cause 18446744073709551615 is no signal of this call",
        ),
        H::FailsLater => Fails("refused", "banana"),
        H::FalseFriend => Apart,

        // What it says of itself.
        H::NanDeadband => Refused("is not a finite number"),
        H::OwnsReady => Refused("\"Ready\": belongs to the host"),
        H::DuplicateType => Refused("\"XidCriticalError\", and so does bundled/xid-policy"),
        H::TypeTwice => Refused("\"TypeTwice\" is declared twice"),
        H::DuplicateName => Apart,
        H::HugeInfo => Refused("info.owns: 10001 entries, and at most 32 are allowed"),
        H::HugeName => Refused("info.name: has 524288 bytes, and at most 253 are allowed"),
        H::RefusesLoudly => Refused(r"refuses its configuration: \u{1b}[31mno\n"),

        // What it asks of the host, and leaves there.
        H::LogFlood | H::StateFlood => OwnConditions,
        H::StderrFlood | H::Sleeps => OwnConditions,
        H::Polls => Fails("trap", "made more than 4096 host calls"),
        H::ReadsFiles | H::OpensSockets | H::ReadsEnvironment | H::ReadsArguments => {
            Says("0 worked")
        }
        H::Exits => Fails("invalid", "it called wasi:cli/exit"),
        H::InfoChanges => Apart,
        H::TimerStorm | H::PoisonWriter | H::PoisonHeir => Apart,

        // What is no policy of this world.
        H::UnknownImport => {
            Refused("imports evil:corp/shell@1.0.0, which this host does not offer")
        }
        H::PlainImport => Refused("imports exec, which this host does not offer"),
        H::OtherWorldVersion => {
            Refused("is built for gpu:device-policy/host@0.2.0, this host offers 0.1.0")
        }
        H::NoExport => Refused("does not export gpu:device-policy/policy@0.1.0"),
        H::WrongTypes => Refused("wrong-types.wasm"),
        H::MemoryOf64Bits => Refused("memory64 must be enabled"),
        H::CoreModule => Refused("is a core WebAssembly module, not a component"),
        H::Truncated => Refused("is cut off after"),
        H::EmptyFile => Refused("is cut off after 0 bytes"),
        H::NativeCode => Refused("native code, which is never taken from outside"),

        // What is no file.
        H::Fifo => Refused("is a FIFO, not a regular file"),
        H::Folder => Refused("is a directory, not a regular file"),
        H::LinkOutside => Refused("elsewhere.wasm, outside of the policy directory"),
        H::LinkToADevice => Refused("/dev/zero, outside of the policy directory"),
        H::LinkInACircle => Refused("can't be read"),
        H::ChangesWhileRead => Apart,
    }
}
