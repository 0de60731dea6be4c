//! Interface `state`: a policy's memory for the device at hand, as a working copy that counts only
//! if the call succeeds (design H3).

use device_api_core::limits::{STATE_BYTES_MAX, STATE_KEYS_MAX};
use device_api_core::policy_status::LimitHit;
use device_api_core::verdict::PolicyState;
use device_api_wasm::Ctx;

use crate::bindings::gpu::device_policy::state::Host;
use crate::data::GuestData;

/// Length of a key. Keys are short words with a number or an instance's UUID in them.
const KEY_BYTES_MAX: usize = 256;

/// A working copy with its size counted, so that a quota costs no walk.
#[derive(Debug)]
pub(crate) struct Draft {
    entries: PolicyState,
    /// Keys and values together.
    bytes: usize,
}

impl Draft {
    pub(crate) fn new(entries: PolicyState) -> Self {
        let bytes = entries
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        Self { entries, bytes }
    }

    /// Keys and values together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn into_state(self) -> PolicyState {
        self.entries
    }

    /// Writes, or says which quota forbids it and writes nothing.
    fn put(&mut self, key: String, value: Vec<u8>) -> Result<(), String> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(format!(
                "a key has {} bytes; 1 to {KEY_BYTES_MAX} are allowed",
                key.len()
            ));
        }
        let old = self.entries.get(&key).map(|old| key.len() + old.len());
        let bytes = self
            .bytes
            .saturating_sub(old.unwrap_or(0))
            .saturating_add(key.len())
            .saturating_add(value.len());
        if bytes > STATE_BYTES_MAX {
            return Err(format!(
                "the state would have {bytes} bytes; at most {STATE_BYTES_MAX} are allowed"
            ));
        }
        if old.is_none() && self.entries.len() >= STATE_KEYS_MAX {
            return Err(format!(
                "the state has {STATE_KEYS_MAX} keys already, which is the most allowed"
            ));
        }
        self.entries.insert(key, value);
        self.bytes = bytes;
        Ok(())
    }

    fn delete(&mut self, key: &str) {
        if let Some((key, value)) = self.entries.remove_entry(key) {
            self.bytes = self.bytes.saturating_sub(key.len() + value.len());
        }
    }
}

impl Host for Ctx<GuestData> {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        self.charge_host_call()?;
        Ok(self
            .data
            .draft
            .as_ref()
            .and_then(|draft| draft.entries.get(&key).cloned()))
    }

    fn put(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
        self.charge_host_call()?;
        Ok(match &mut self.data.draft {
            Some(draft) => {
                let written = draft.put(key, value);
                if written.is_err() {
                    self.data.telemetry.hit(LimitHit::State);
                }
                written
            }
            None => Err(
                "there is no device to keep state for while the policy is being configured"
                    .to_owned(),
            ),
        })
    }

    fn delete(&mut self, key: String) -> wasmtime::Result<()> {
        self.charge_host_call()?;
        if let Some(draft) = &mut self.data.draft {
            draft.delete(&key);
        }
        Ok(())
    }

    fn keys(&mut self) -> wasmtime::Result<Vec<String>> {
        self.charge_host_call()?;
        Ok(self
            .data
            .draft
            .as_ref()
            .map(|draft| draft.entries.keys().cloned().collect())
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(state: &PolicyState) -> usize {
        state
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    }

    #[test]
    fn over_a_quota_nothing_is_written() {
        let mut draft = Draft::new(PolicyState::new());
        draft
            .put("a".to_owned(), vec![1; STATE_BYTES_MAX - 1])
            .unwrap();
        assert!(
            draft
                .put("b".to_owned(), Vec::new())
                .unwrap_err()
                .contains("65537 bytes")
        );
        assert!(draft.put("a".to_owned(), vec![2; STATE_BYTES_MAX]).is_err());
        assert_eq!(draft.entries["a"], vec![1; STATE_BYTES_MAX - 1]);
        // The same key again is no more bytes.
        draft
            .put("a".to_owned(), vec![3; STATE_BYTES_MAX - 1])
            .unwrap();
        draft.delete("a");
        draft
            .put("b".to_owned(), vec![4; STATE_BYTES_MAX - 1])
            .unwrap();
    }

    #[test]
    fn keys_are_bounded_in_number_and_length() {
        let mut draft = Draft::new(PolicyState::new());
        for key in 0..STATE_KEYS_MAX {
            draft.put(key.to_string(), Vec::new()).unwrap();
        }
        assert!(
            draft
                .put("one more".to_owned(), Vec::new())
                .unwrap_err()
                .contains("128 keys")
        );
        draft.put("0".to_owned(), vec![1]).unwrap();
        assert!(draft.put(String::new(), Vec::new()).is_err());
        assert!(
            draft
                .put("k".repeat(KEY_BYTES_MAX + 1), Vec::new())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn the_count_of_bytes_stays_true(ops in prop::collection::vec(("[a-d]{1,2}", prop::option::of(0_usize..40_000)), 0..40)) {
            let mut draft = Draft::new(PolicyState::from([("a".to_owned(), vec![0; 7])]));
            for (key, length) in ops {
                match length {
                    Some(length) => drop(draft.put(key, vec![0; length])),
                    None => draft.delete(&key),
                }
                prop_assert_eq!(draft.bytes, size(&draft.entries));
                prop_assert!(draft.bytes <= STATE_BYTES_MAX);
            }
        }
    }
}
