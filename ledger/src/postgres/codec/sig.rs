//! The signature of a batch: a Bloom filter over the ids and keys in it, so that a search reads few batches.

/// Batches of fewer events have no signature: looking into them is as cheap.
const SMALL: usize = 9;
/// Bits per word; with [`PROBES`] probes a foreign word is taken for one of the batch about once in 80 times:
/// (1 - e^(-4/10))^4 = 1.2 %.
const BITS_PER_WORD: usize = 10;
/// Bits set per word.
const PROBES: u64 = 4;
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
    let (a, b) = hashes(word);
    let bits = filter.len() as u64 * 8;
    for i in 0..PROBES {
        let bit = (a.unsigned_abs() + i * b.unsigned_abs()) % bits;
        filter[(bit / 8) as usize] |= 1 << (bit % 8);
    }
}

/// The two hashes of a word, both below 2^31: what `bellwire.may_hold` is asked with.
pub(in crate::postgres) fn hashes(word: &str) -> (i64, i64) {
    // FNV-1a, stable across versions and machines, then mixed (the finish of splitmix64), because its high bits are
    // poor for short words.
    let fnv = word
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let mixed = mixed ^ (mixed >> 31);
    ((mixed >> 33) as i64, (mixed & 0x7fff_ffff) as i64)
}
