//! The signature of a batch: a Bloom filter over the ids and keys in it, so that a search reads few batches.

/// Batches of fewer events have no signature: looking into them is as cheap.
const SMALL: usize = 9;
/// Bits per word; with [`PROBES`] probes a foreign word is taken for one of the batch about once in 80 times:
/// (1 - e^(-4/10))^4 = 1.2 %.
const BITS_PER_WORD: usize = 10;
/// Bits set per word.
const PROBES: u32 = 4;
/// Largest signature, bytes.
const LARGEST: usize = 16 << 10;

/// The signature of a batch of ids and keys; nothing for a small one.
///
/// The filter has `8 * length` bits, numbered as `get_bit` does: bit n is `byte[n / 8] >> (n % 8)`. A word with the
/// hashes (a, b) sets the bits `(a + i * b) mod bits` for i = 0 to 3.
pub(in crate::postgres) fn sig<'a>(
    words: impl Iterator<Item = (&'a str, Option<&'a str>)> + Clone,
) -> Option<Vec<u8>> {
    let (mut ids, mut keys) = (0_usize, 0_usize);
    let mut last = None;
    for (_, key) in words.clone() {
        ids += 1;
        if key.is_some() && key != last {
            keys += 1;
            last = key;
        }
    }
    if ids < SMALL {
        return None;
    }
    let bytes = ((ids + keys) * BITS_PER_WORD).div_ceil(8).min(LARGEST);
    let mut filter = vec![0; bytes];
    let mut last = None;
    for (id, key) in words {
        set(&mut filter, id);
        // Neighbours often share a key.
        if let Some(word) = key.filter(|_| key != last) {
            set(&mut filter, word);
            last = key;
        }
    }
    Some(filter)
}

fn set(filter: &mut [u8], word: &str) {
    let (a, b) = halves(word);
    let bits = filter.len() as u32 * 8;
    // The sums of the remainders, so that two divisions do for all probes.
    let (mut bit, step) = (a % bits, b % bits);
    for _ in 0..PROBES {
        filter[(bit / 8) as usize] |= 1 << (bit % 8);
        bit += step;
        if bit >= bits {
            bit -= bits;
        }
    }
}

/// The two hashes of a word, both below 2^31: what `bellwire.may_hold` is asked with.
pub(in crate::postgres) fn hashes(word: &str) -> (i64, i64) {
    let (a, b) = halves(word);
    (a.into(), b.into())
}

/// Stored filters depend on this: it must never change. Eight bytes at a time are mixed in by multiplication (one event's
/// id costs a few nanoseconds), then all bits are spread by the finish of splitmix64.
fn halves(word: &str) -> (u32, u32) {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ word.len() as u64;
    let (eights, rest) = word.as_bytes().as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for eight in eights.iter().chain([&last]) {
        hash = (hash ^ u64::from_le_bytes(*eight)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    ((hash >> 33) as u32, (hash & 0x7fff_ffff) as u32)
}
