//! A file that can be written to without being changed: what is written stays in memory.
//!
//! The database repairs itself while it is opened. An old file is looked at through this first, so that
//! one which turns out to be damaged is set aside as it was found, and one on a disk that can't be
//! written to is read all the same.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::DiskFile;

/// The database's own page size, so that most writes touch one block.
const BLOCK_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct Overlay {
    below: Arc<dyn DiskFile>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    size: u64,
    /// How much of the file below still shows: it was cut here.
    visible: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(crate) fn new(below: Arc<dyn DiskFile>) -> io::Result<Self> {
        let size = below.size()?;
        Ok(Self {
            below,
            state: Mutex::new(State {
                size,
                visible: size,
                blocks: HashMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block as it is below.
    fn original(&self, visible: u64, index: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK_BYTES];
        let start = index.saturating_mul(BLOCK_BYTES as u64);
        let there = visible.saturating_sub(start).min(BLOCK_BYTES as u64) as usize;
        if let Some(part) = block.get_mut(..there) {
            self.below.read(start, part)?;
        }
        Ok(block)
    }
}

/// Calls `each` with the blocks that a range touches: index, place in the block, place in the range.
fn blocks(
    offset: u64,
    len: usize,
    mut each: impl FnMut(u64, usize, std::ops::Range<usize>) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let at = offset.saturating_add(done as u64);
        let within = (at % BLOCK_BYTES as u64) as usize;
        let step = (BLOCK_BYTES - within).min(len - done);
        each(at / BLOCK_BYTES as u64, within, done..done + step)?;
        done += step;
    }
    Ok(())
}

impl DiskFile for Overlay {
    fn size(&self) -> io::Result<u64> {
        Ok(self.state().size)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        blocks(offset, out.len(), |index, within, range| {
            let original;
            let block = match state.blocks.get(&index) {
                Some(block) => block,
                None => {
                    original = self.original(state.visible, index)?;
                    &original
                }
            };
            let bytes = block.get(within..within + range.len());
            if let (Some(out), Some(bytes)) = (out.get_mut(range), bytes) {
                out.copy_from_slice(bytes);
            }
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let visible = state.visible;
        blocks(offset, data.len(), |index, within, range| {
            let mut block = match state.blocks.remove(&index) {
                Some(block) => block,
                None => self.original(visible, index)?,
            };
            let bytes = block.get_mut(within..within + range.len());
            if let (Some(bytes), Some(data)) = (bytes, data.get(range)) {
                bytes.copy_from_slice(data);
            }
            state.blocks.insert(index, block);
            Ok(())
        })?;
        state.size = state.size.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        state.size = bytes;
        state.visible = state.visible.min(bytes);
        let block_bytes = BLOCK_BYTES as u64;
        state
            .blocks
            .retain(|index, _| index.saturating_mul(block_bytes) < bytes);
        let within = (bytes % block_bytes) as usize;
        if let Some(block) = state.blocks.get_mut(&(bytes / block_bytes))
            && let Some(cut) = block.get_mut(within..)
        {
            cut.fill(0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Resize(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u64..20_000, prop::collection::vec(any::<u8>(), 0..9_000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            (0_u64..20_000).prop_map(Step::Resize),
        ];
        prop::collection::vec(step, 0..12)
    }

    proptest! {
        #[test]
        fn it_reads_as_a_file_would_and_leaves_the_one_below_alone(
            original in prop::collection::vec(any::<u8>(), 0..12_000),
            steps in steps(),
        ) {
            let below = tempfile::tempfile().expect("a file");
            below.write_all_at(&original, 0).expect("written");
            let overlay = Overlay::new(Arc::new(below.try_clone().expect("cloned"))).expect("read");
            let mut model = original.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        let end = at as usize + data.len();
                        if data.is_empty() { continue; }
                        if model.len() < end { model.resize(end, 0); }
                        model[at as usize..end].copy_from_slice(&data);
                        overlay.write(at, &data).expect("in memory");
                    }
                    Step::Resize(bytes) => {
                        model.resize(bytes as usize, 0);
                        overlay.resize(bytes).expect("in memory");
                    }
                }
                prop_assert_eq!(overlay.size().expect("known"), model.len() as u64);
            }
            let mut read = vec![0; model.len()];
            overlay.read(0, &mut read).expect("read");
            prop_assert!(read == model);
            let mut kept = vec![0; original.len()];
            below.read_exact_at(&mut kept, 0).expect("read");
            prop_assert!(kept == original);
        }
    }
}
