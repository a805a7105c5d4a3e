//! Pieces as keys of hash tables: up to 15 bytes are two words, compared at once and stored in place.

/// A short piece as two words, its length in the highest byte; or what stands for a long one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    pub low: u64,
    pub high: u64,
}

/// The longest piece that is its own key.
pub(crate) const SHORT_BYTES: usize = 15;
/// In the place of a length: the key of a long piece.
const LONG: u64 = 0xff;
/// Bits of a long key's length; pieces have at most 2^20 bytes.
const LENGTH_BITS: u32 = 21;

/// Masks that keep the lowest bytes.
const LOWEST: [u128; SHORT_BYTES + 1] = {
    let mut masks = [0; SHORT_BYTES + 1];
    let mut n = 1;
    while n <= SHORT_BYTES {
        masks[n] = masks[n - 1] << 8 | 0xff;
        n += 1;
    }
    masks
};

impl Key {
    /// The key of `text[start..start + length]`, which is short.
    #[inline]
    pub(crate) fn short(text: &[u8], start: usize, length: usize) -> Key {
        let sixteen = match text[start..].first_chunk::<16>() {
            Some(sixteen) => *sixteen,
            None => {
                let mut padded = [0; 16];
                let rest = &text[start..];
                padded[..rest.len()].copy_from_slice(rest);
                padded
            }
        };
        let bytes = u128::from_le_bytes(sixteen) & LOWEST[length];
        Key { low: bytes as u64, high: (bytes >> 64) as u64 | (length as u64) << 56 }
    }

    /// The key of a long piece whose bytes lie at `at` in a table's own store.
    pub(crate) fn long(hash: u64, at: usize, length: usize) -> Key {
        Key { low: hash, high: LONG << 56 | (at as u64) << LENGTH_BITS | length as u64 }
    }

    /// Where the bytes of a long piece lie.
    #[inline]
    pub(crate) fn place(self) -> Option<(usize, usize)> {
        let at = (self.high << 8 >> 8 >> LENGTH_BITS) as usize;
        (self.high >> 56 == LONG).then_some((at, self.high as usize & ((1 << LENGTH_BITS) - 1)))
    }

    /// The bytes of a short piece and how many they are.
    pub(crate) fn bytes(self) -> ([u8; 16], usize) {
        let bytes = u128::from(self.low) | u128::from(self.high) << 64;
        (bytes.to_le_bytes(), (self.high >> 56) as usize)
    }

    /// Spread over all 64 bits; tables take their places from the highest.
    #[inline]
    pub(crate) fn hash(self) -> u64 {
        fold(self.low ^ 0x9e37_79b9_7f4a_7c15, self.high ^ 0xd1b5_4a32_d192_ed03)
    }
}

/// No UTF-8 text holds the bytes of this number, so no word of a text makes a factor zero, which would forget the rest.
const NO_TEXT: u64 = 0xe703_7ed1_a0b4_28db;

/// Hash of a long piece.
#[inline]
pub(crate) fn hash_long(piece: &[u8]) -> u64 {
    let (eights, rest) = piece.as_chunks::<8>();
    let start = piece.len() as u64 ^ 0xa076_1d64_78bd_642f;
    let hash = eights.iter().fold(start, |hash, eight| fold(hash ^ 0x8ebc_6af0_9c88_c6e3, u64::from_le_bytes(*eight) ^ NO_TEXT));
    let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    fold(hash ^ 0x8ebc_6af0_9c88_c6e3, tail ^ NO_TEXT)
}

/// Hash of a piece of any length. Which pieces a tokenizer learns from can depend on it: another hash is other tokenizers.
#[inline]
pub(crate) fn hash_piece(piece: &[u8]) -> u64 {
    if piece.len() <= SHORT_BYTES { Key::short(piece, 0, piece.len()).hash() } else { hash_long(piece) }
}

/// Both halves of a product, folded: every bit of one factor reaches every bit of the result.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_short_key_holds_its_bytes(text in prop::collection::vec(any::<u8>(), 1..40), start in 0usize..40, length in 1usize..=15) {
            let start = start % text.len();
            let length = length.min(text.len() - start);
            let (bytes, n) = Key::short(&text, start, length).bytes();
            prop_assert_eq!(&bytes[..n], &text[start..start + length]);
        }
    }

    #[test]
    fn hashes_are_what_they_were() {
        let found = [&b"a"[..], b" and", b"fifteen letters", b"more than fifteen letters"].map(hash_piece);
        assert_eq!(found, [3_849_024_316_689_734_417, 13_410_870_099_216_233_931, 14_400_513_849_021_222_362, 486_059_354_566_210_498]);
    }

    #[test]
    fn a_long_key_holds_its_place() {
        assert_eq!(Key::long(7, (1 << 35) - 1, 1 << 20).place(), Some(((1 << 35) - 1, 1 << 20)));
        assert_eq!(Key::short(&[0xff; 20], 0, 15).place(), None);
    }
}
