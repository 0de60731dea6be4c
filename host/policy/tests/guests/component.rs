//! Small components written out by hand, with the canonical ABI's layout of their answers: a guest
//! that a toolchain would not make, and in milliseconds.

/// The world's types, word for word those of `wit/types.wit`: a difference fails at load.
const TYPES: &str = include_str!("types.wat");

/// Where the answers lie; below is scratch space, above, at 65,536, the heap.
const ANSWERS_AT: u32 = 4096;

/// A device and a list of signals, as they are handed to a core function.
const SIXTEEN_WORDS: &str = " i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32";

/// Answers laid out in linear memory.
#[derive(Default)]
pub(crate) struct Memory {
    bytes: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(crate) struct Verdict<'a> {
    pub(crate) condition: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) action: &'a str,
    pub(crate) clear: &'a str,
    pub(crate) cause: u64,
}

/// Within what the guests of this file declare.
pub(crate) const GOOD: Verdict<'static> = Verdict {
    condition: "TestFault",
    reason: "Broken",
    action: "RESTART_BM",
    clear: "policy",
    cause: 1,
};

impl Memory {
    fn put(&mut self, bytes: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = ANSWERS_AT + u32::try_from(self.bytes.len()).unwrap();
        self.bytes.extend(bytes);
        at
    }

    /// Pointer and length.
    fn list(&mut self, bytes: &[u8], items: usize) -> Vec<u8> {
        let mut out = self.put(bytes).to_le_bytes().to_vec();
        out.extend(u32::try_from(items).unwrap().to_le_bytes());
        out
    }

    pub(crate) fn text(&mut self, text: &str) -> Vec<u8> {
        self.list(text.as_bytes(), text.len())
    }

    fn texts(&mut self, texts: &[&str]) -> Vec<u8> {
        let items: Vec<u8> = texts.iter().flat_map(|text| self.text(text)).collect();
        self.list(&items, texts.len())
    }

    /// `ok(info)`: owns the types with the one reason `Broken`, and wants every XID.
    pub(crate) fn info(&mut self, name: &str, types: &[&str]) -> u32 {
        let empty = [0_u8; 8];
        let mut owns = Vec::new();
        for condition in types {
            owns.extend(self.text(condition));
            owns.extend(1_u32.to_le_bytes());
            owns.extend(self.texts(&["Broken"]));
        }
        let owns = self.list(&owns, types.len());
        let mut subscription = self.text("xid");
        subscription.extend(empty);
        let subscriptions = self.list(&subscription, 1);
        let (name, version) = (self.text(name), self.text("1.0.0"));
        let schema = 1_u32.to_le_bytes();
        self.put(
            &[
                &[0; 4][..],
                &name,
                &version,
                &schema,
                &subscriptions,
                &owns,
                &empty,
                &empty,
            ]
            .concat(),
        )
    }

    /// `ok(decision)` with these verdicts, each a fatal problem.
    pub(crate) fn decision(&mut self, verdicts: &[Verdict<'_>]) -> u32 {
        let empty = [0_u8; 8];
        let mut items = Vec::new();
        for verdict in verdicts {
            let mut clear = self.text(verdict.clear);
            clear.extend(0_u64.to_le_bytes());
            // problem, fatal
            let state = [1, 2, 0, 0];
            let (condition, reason, message, action) = (
                self.text(verdict.condition),
                self.text(verdict.reason),
                self.text("it \x1b[1mbroke"),
                self.text(verdict.action),
            );
            let clears = self.list(&clear, 1);
            let no_instance = [0_u8; 12];
            items.extend(
                [
                    &condition[..],
                    &state,
                    &reason,
                    &message,
                    &action,
                    &clears,
                    &no_instance,
                ]
                .concat(),
            );
            items.extend(verdict.cause.to_le_bytes());
            items.extend(empty);
        }
        let items = self.list(&items, verdicts.len());
        self.put(&[&[0; 4][..], &items, &empty, &empty].concat())
    }

    /// `err(text)`.
    pub(crate) fn error(&mut self, text: &str) -> u32 {
        let text = self.text(text);
        self.put(&[&[1, 0, 0, 0][..], &text].concat())
    }

    /// Instructions that push pointer and length of a text.
    pub(crate) fn push(&mut self, text: &str) -> String {
        format!(
            "(i32.const {}) (i32.const {})",
            self.put(text.as_bytes()),
            text.len()
        )
    }

    fn escaped(&self) -> String {
        self.bytes
            .iter()
            .map(|byte| format!("\\{byte:02x}"))
            .collect()
    }
}

/// A guest whose `configure` leaves the address of its answer, as does `evaluate`. Both may call
/// `$log` (level, pointer, length), `$now`, `$get` (key, key length, where to), `$put` (key, key
/// length, value, value length, where to).
pub(crate) fn component(memory: &Memory, configure: &str, evaluate: &str) -> Vec<u8> {
    let data = memory.escaped();
    let text = format!(
        r#"(component {TYPES}
          (core module $m
            (import "libc" "memory" (memory 2))
            (import "host" "log" (func $log (param i32 i32 i32)))
            (import "host" "now-ms" (func $now (result i64)))
            (import "host" "get" (func $get (param i32 i32 i32)))
            (import "host" "put" (func $put (param i32 i32 i32 i32 i32)))
            (data (i32.const {ANSWERS_AT}) "{data}")
            (func (export "configure") (param i32 i32) (result i32) {configure})
            (func (export "evaluate") (param{SIXTEEN_WORDS}) (result i32) (local $i i32) {evaluate}))
          {LINKED})"#
    );
    wat::parse_str(text).unwrap()
}

/// A guest that behaves as the time of the newest signal, in milliseconds, tells it to: instructions
/// that leave the address of an answer. At other times it has no opinion.
pub(crate) fn moody(
    name: &str,
    types: &[&str],
    moods: impl FnOnce(&mut Memory) -> Vec<(u64, String)>,
) -> Vec<u8> {
    let mut memory = Memory::default();
    let info = memory.info(name, types);
    let nothing = memory.decision(&[]);
    let mut evaluate = String::new();
    for (at_ms, instructions) in moods(&mut memory) {
        evaluate += &format!(
            "(if (i64.eq (call $now) (i64.const {at_ms})) (then {instructions} (return)))\n"
        );
    }
    component(
        &memory,
        &format!("i32.const {info}"),
        &format!("{evaluate} i32.const {nothing}"),
    )
}

/// A guest that says the same of every signal; `mark` tells its bytes from another's.
pub(crate) fn always(name: &str, types: &[&str], mark: &str, verdicts: &[Verdict<'_>]) -> Vec<u8> {
    let mut memory = Memory::default();
    memory.push(mark);
    let info = memory.info(name, types);
    let decision = memory.decision(verdicts);
    component(
        &memory,
        &format!("i32.const {info}"),
        &format!("i32.const {decision}"),
    )
}

/// A guest without opinions.
pub(crate) fn quiet(name: &str, types: &[&str]) -> Vec<u8> {
    moody(name, types, |_| Vec::new())
}

/// Memory with an allocator that starts again after each call, the host's functions, the exports.
const LINKED: &str = r#"
  (core instance $m (instantiate $m
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "log" (func $log)) (export "now-ms" (func $now))
      (export "get" (func $get)) (export "put" (func $put))))))
  (func $configure (param "config" string) (result (result $info (error string)))
    (canon lift (core func $m "configure") (memory $memory) (realloc $realloc)
      (post-return (core func $libc "done"))))
  (func $evaluate (param "device" $device) (param "signals" (list $signal)) (result (result $decision (error string)))
    (canon lift (core func $m "evaluate") (memory $memory) (realloc $realloc)
      (post-return (core func $libc "done"))))
  (instance $policy (export "configure" (func $configure)) (export "evaluate" (func $evaluate)))
  (export "gpu:device-policy/policy@0.1.0" (instance $policy))"#;
