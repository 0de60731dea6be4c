//! `wasi:random`: numbers that are the same in a replay. Fit for a hash table or a spread of retries;
//! no secret can come of them, and a policy has none.

use super::{Definition, WasiHost};

/// Most bytes at once; programs seed generators with some dozens.
const BYTES_MAX: u64 = 64 * 1024;

/// The same for every call and instance: runtimes ask once for it and order their hash tables by it,
/// and a warm instance has asked in another call than a fresh one.
const INSECURE_SEED: (u64, u64) = (0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);

pub(super) fn define<D: WasiHost>(to: &mut Definition<'_, '_, D>) -> wasmtime::Result<bool> {
    match (to.interface, to.item) {
        ("random", "get-random-bytes") | ("insecure", "get-insecure-random-bytes") => {
            to.wrap(|host, (len,): (u64,)| Ok((bytes(host, len)?,)))
        }
        ("random", "get-random-u64") | ("insecure", "get-insecure-random-u64") => {
            to.wrap(|host, (): ()| Ok((next(host),)))
        }
        ("insecure-seed", "insecure-seed") => to.wrap(|_, (): ()| Ok((INSECURE_SEED,))),
        _ => Ok(false),
    }
}

fn bytes(host: &mut impl WasiHost, len: u64) -> wasmtime::Result<Vec<u8>> {
    if len > BYTES_MAX {
        return Err(wasmtime::format_err!(
            "it asked for {len} random bytes at once, and gets {BYTES_MAX} at most"
        ));
    }
    // At most BYTES_MAX, which is a usize everywhere.
    let len = usize::try_from(len).unwrap_or_default();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(size_of::<u64>()));
    while bytes.len() < len {
        bytes.extend(next(host).to_le_bytes());
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// `SplitMix64`: every seed is a good one, and all bits of it count.
fn next(host: &mut impl WasiHost) -> u64 {
    let seed = host.seed();
    let state = host.wasi().random.get_or_insert(seed);
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
