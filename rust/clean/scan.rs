//! Looking for the few places of a text that a rule may change, many bytes at a time.

/// Bytes looked at together.
const LANES: usize = 32;

/// The first place from `from` on where `wanted(byte, next, next but one)` holds; past the end all bytes are `\n`.
///
/// `wanted` must be free of branches (`&` and `|`, not `&&` and `||`), so that the compiler makes vector code of it.
#[inline]
pub fn find(bytes: &[u8], from: usize, wanted: impl Fn(u8, u8, u8) -> bool) -> Option<usize> {
    let mut at = from;
    while let Some(window) = bytes[at..].first_chunk::<{ LANES + 2 }>() {
        let mut found = [0u8; LANES];
        for i in 0..LANES {
            found[i] = u8::from(wanted(window[i], window[i + 1], window[i + 2]));
        }
        let (words, _) = found.as_chunks::<8>();
        for (i, word) in words.iter().enumerate() {
            let word = u64::from_le_bytes(*word);
            if word != 0 {
                return Some(at + 8 * i + word.trailing_zeros() as usize / 8);
            }
        }
        at += LANES;
    }
    let byte = |i: usize| bytes.get(i).copied().unwrap_or(b'\n');
    (at..bytes.len()).find(|&i| wanted(bytes[i], byte(i + 1), byte(i + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_found_is_the_first(bytes in prop::collection::vec(0u8..4, 0..200), from in 0usize..200, triple in prop::array::uniform3(0u8..4)) {
            let from = from.min(bytes.len());
            let wanted = |a, b, c| [a, b, c] == triple;
            let padded = [bytes.as_slice(), b"\n\n"].concat();
            let expected = padded.windows(3).enumerate().skip(from).find(|(_, w)| wanted(w[0], w[1], w[2])).map(|(at, _)| at);
            prop_assert_eq!(find(&bytes, from, wanted), expected);
        }
    }
}
