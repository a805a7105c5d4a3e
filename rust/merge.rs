//! A piece -> ids: the pair with the lowest rank merges first, the leftmost of equals, until none is left.
//!
//! Up to 64 bytes are merged in registers and one cache line or four; more than that by way of windows. What makes windows
//! exact is a law of this rule: *a row of tokens is what its bytes become if every two neighbours are what the two's bytes
//! become.* For look at the first merge that would go across a bound of the row: of the two tokens there, alone, the same
//! merge would have been the lowest, too. So two windows that overlap may be joined wherever they share a token: every two
//! neighbours stand together in one of the windows. A long piece costs what its windows cost, however long it is.
//!
//! Source: github/rust-gems `bpe` has the law for dictionaries; here it needs nothing of the merges.

use crate::vocab::Vocab;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

/// The merges of a vocabulary, by pair.
///
/// Within this file a token is a *symbol*: 0 to 255 are the bytes, then what merges make, in order. With it ranks and both
/// symbols of a merge fit in one word.
#[derive(Debug)]
pub(crate) struct Merges {
    /// A power of two, at most half full: left, right and rank in 21 bits each, and 1; or 0.
    slots: Vec<u64>,
    /// Bits by hash, four for each slot: most pairs have no merge, and this says so without a look there.
    filter: Vec<u64>,
    /// Of two bytes: their rank, or none.
    byte_pairs: Vec<u32>,
    /// What each rank makes, where that is not simply 256 and the rank: several merges may make the same token.
    made: Vec<u32>,
    /// Id of each symbol.
    ids: Vec<u32>,
}

/// A symbol and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: u32,
    symbol: u32,
}

/// No merge; in the place of a symbol, merged into the one before.
const NONE: u32 = u32::MAX;
/// Bits of symbols and ranks.
const BITS: u32 = 21;
/// Bytes of a piece or window that is merged in registers.
const SHORT: usize = 64;
/// Where longer windows than this share nothing, tokens are as long, and the piece is merged as a whole.
const LONGEST_WINDOW: usize = 1024;

impl Merges {
    pub(crate) fn new(vocab: &Vocab) -> Merges {
        let n = vocab.merges().len();
        let mut ids: Vec<u32> = vocab.byte_ids().to_vec();
        let mut symbols = vec![NONE; vocab.len()];
        (0u32..).zip(&ids).for_each(|(symbol, id)| symbols[*id as usize] = symbol);
        let mut made = Vec::with_capacity(n);
        for merge in vocab.merges() {
            let symbol = &mut symbols[merge.id as usize];
            if *symbol == NONE {
                *symbol = ids.len() as u32;
                ids.push(merge.id);
            }
            made.push(*symbol);
        }
        let regular = made.iter().zip(256..).all(|(symbol, expected)| *symbol == expected);
        let mut merges = Merges {
            filter: vec![0; ((2 * n + 2).next_power_of_two() * 4).div_ceil(64)],
            slots: vec![0; (2 * n + 2).next_power_of_two()],
            byte_pairs: vec![NONE; 1 << 16],
            made: if regular { Vec::new() } else { made },
            ids,
        };
        for (rank, merge) in (0u32..).zip(vocab.merges()) {
            // A token that no merge makes is never seen.
            let [left, right] = [merge.left, merge.right].map(|id| symbols[id as usize]);
            if left != NONE && right != NONE {
                merges.insert(left, right, rank);
            }
        }
        merges
    }

    fn insert(&mut self, left: u32, right: u32, rank: u32) {
        if self.rank(left, right) != NONE {
            return;
        }
        if left < 256 && right < 256 {
            self.byte_pairs[(left << 8 | right) as usize] = rank;
        }
        let mask = self.slots.len() - 1;
        let (mut at, bit) = self.place(left, right);
        self.filter[bit / 64] |= 1 << (bit % 64);
        while self.slots[at & mask] != 0 {
            at += 1;
        }
        self.slots[at & mask] = (u64::from(left) << BITS | u64::from(right)) << (BITS + 1) | u64::from(rank) << 1 | 1;
    }

    #[inline]
    fn place(&self, left: u32, right: u32) -> (usize, usize) {
        let key = u64::from(left) << BITS | u64::from(right);
        let bit = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (62 - self.slots.len().trailing_zeros())) as usize;
        (bit >> 2, bit)
    }

    /// The rank of a pair, or none.
    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        let key = u64::from(left) << BITS | u64::from(right);
        let mask = self.slots.len() - 1;
        let (mut at, bit) = self.place(left, right);
        if self.filter[bit / 64] >> (bit % 64) & 1 == 0 {
            return NONE;
        }
        loop {
            let slot = self.slots[at & mask];
            if slot >> (BITS + 1) == key && slot != 0 {
                return (slot as u32 >> 1) & ((1 << BITS) - 1);
            }
            if slot == 0 {
                return NONE;
            }
            at += 1;
        }
    }

    #[inline]
    fn made_by(&self, rank: u32) -> u32 {
        if self.made.is_empty() { 256 + rank } else { self.made[rank as usize] }
    }

    /// Appends the ids of a piece.
    pub(crate) fn merge(&self, piece: &[u8], ids: &mut Vec<u32>) {
        match piece.len() {
            0..=16 => self.append_short(self.merge_short::<16>(piece), ids),
            17..=32 => self.append_short(self.merge_short::<32>(piece), ids),
            33..=SHORT => self.append_short(self.merge_short::<SHORT>(piece), ids),
            _ => self.merge_long(piece, ids),
        }
    }

    #[inline]
    fn append_short<const N: usize>(&self, (symbols, mut starts): ([u32; N], u64), ids: &mut Vec<u32>) {
        while starts != 0 {
            ids.push(self.ids[symbols[starts.trailing_zeros() as usize] as usize]);
            starts &= starts - 1;
        }
    }

    /// The symbols of at most N bytes, and a bit for each place where one starts; N is 64 at most.
    #[inline]
    fn merge_short<const N: usize>(&self, piece: &[u8]) -> ([u32; N], u64) {
        let n = piece.len();
        let mut symbols = [0; N];
        // Of each part with the next: the rank and below it the place, so that the least is the lowest, leftmost pair.
        let mut keys = [i32::MAX; N];
        let key = |rank: u32, at: usize| if rank == NONE { i32::MAX } else { (rank << 6 | at as u32).cast_signed() };
        for (symbol, byte) in symbols.iter_mut().zip(piece) {
            *symbol = u32::from(*byte);
        }
        for at in 0..n.saturating_sub(1) {
            keys[at] = key(self.byte_pairs[usize::from(piece[at]) << 8 | usize::from(piece[at + 1])], at);
        }
        let mut starts = u64::MAX >> (SHORT - n);
        let groups = n.div_ceil(8);
        loop {
            let lowest = keys.as_chunks::<8>().0[..groups].iter().fold([i32::MAX; 8], |lowest, keys| {
                std::array::from_fn(|i| lowest[i].min(keys[i])) // eight at once
            });
            let lowest = lowest.into_iter().fold(i32::MAX, i32::min);
            if lowest == i32::MAX {
                return (symbols, starts);
            }
            let (at, rank) = (lowest as usize % SHORT, lowest as u32 / SHORT as u32);
            let merged = starts & !(1 << at) & (u64::MAX << at);
            let next = merged.trailing_zeros() as usize;
            starts &= !(1 << next);
            let symbol = self.made_by(rank);
            symbols[at] = symbol;
            keys[next] = i32::MAX;
            let beyond = merged & (merged - 1);
            let rank = if beyond == 0 { NONE } else { self.rank(symbol, symbols[beyond.trailing_zeros() as usize]) };
            keys[at] = key(rank, at);
            let before = starts & ((1 << at) - 1);
            if before != 0 {
                let before = 63 - before.leading_zeros() as usize;
                keys[before] = key(self.rank(symbols[before], symbol), before);
            }
        }
    }

    /// The parts of any number of bytes, all at once.
    fn parts(&self, bytes: &[u8], parts: &mut Vec<Part>) {
        parts.clear();
        if bytes.len() > SHORT {
            return self.merge_by_rank(bytes, parts);
        }
        let (symbols, mut starts) = self.merge_short::<SHORT>(bytes);
        while starts != 0 {
            let start = starts.trailing_zeros();
            parts.push(Part { start, symbol: symbols[start as usize] });
            starts &= starts - 1;
        }
    }

    /// For each rank that is due the places that had it, lowest rank first; a place whose pair has changed is passed over.
    fn merge_by_rank(&self, bytes: &[u8], parts: &mut Vec<Part>) {
        let mut row = Row::new(bytes);
        let mut due = BTreeMap::<u32, Vec<u32>>::new();
        for (pair, at) in bytes.windows(2).zip(0..) {
            let rank = self.byte_pairs[usize::from(pair[0]) << 8 | usize::from(pair[1])];
            if rank != NONE {
                due.entry(rank).or_default().push(at);
            }
        }
        while let Some((rank, mut places)) = due.pop_first() {
            places.sort_unstable();
            let mut lower = false;
            let mut places = places.into_iter();
            while !lower && let Some(at) = places.next() {
                for (new, at) in row.merge(self, rank, at) {
                    due.entry(new).or_default().push(at);
                    lower |= new < rank;
                }
            }
            if lower {
                // Only odd vocabularies make a pair of a lower rank than its parts: one place at a time from here on.
                let rest = due.into_iter().flat_map(|(rank, places)| places.into_iter().map(move |at| Reverse((rank, at))));
                let mut heap: BinaryHeap<_> = rest.chain(places.map(|at| Reverse((rank, at)))).collect();
                while let Some(Reverse((rank, at))) = heap.pop() {
                    heap.extend(row.merge(self, rank, at).map(Reverse));
                }
                break;
            }
        }
        parts.extend(row.symbols.iter().zip(0..).filter(|(symbol, _)| **symbol != NONE).map(|(&symbol, start)| Part { start, symbol }));
    }

    /// Appends the ids of a long piece, window by window.
    fn merge_long(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let begin = ids.len();
        let (mut window, mut next) = (Vec::new(), Vec::new());
        let (mut start, mut width) = (0, SHORT);
        self.parts(&piece[..width], &mut window);
        // What the window begins with up to here is done: the last of it was appended, from the window before.
        let mut done = 0;
        while start + width < piece.len() {
            // The next window begins with one of this one's tokens, so that they are likely to share it.
            let middle = window.partition_point(|part| (part.start as usize) < width * 5 / 8).min(window.len() - 1);
            let middle = middle.max(done.max(1) - 1);
            let shift = window[middle].start as usize;
            let ahead = (piece.len() - start - shift).min(width);
            self.parts(&piece[start + shift..start + shift + ahead], &mut next);
            let found = if shift == 0 { None } else { shared(&window[middle..], &next, shift as u32) };
            if let Some((mine, theirs)) = found {
                self.append(&window[done..=middle + mine], ids);
                std::mem::swap(&mut window, &mut next);
                (start, done) = (start + shift, theirs + 1);
                continue;
            }
            // Longer windows share more. The one in hand is made longer; it must still hold what was appended last.
            width *= 2;
            let last = done.checked_sub(1).map(|last| window[last]);
            self.parts(&piece[start..piece.len().min(start + width)], &mut window);
            let place = last.map_or(Some(0), |last| Some(window.iter().position(|part| *part == last)? + 1));
            let Some(place) = place.filter(|_| width <= LONGEST_WINDOW) else {
                ids.truncate(begin);
                next.clear();
                self.merge_by_rank(piece, &mut next);
                return self.append(&next, ids);
            };
            done = place;
        }
        self.append(&window[done..], ids);
    }

    fn append(&self, parts: &[Part], ids: &mut Vec<u32>) {
        ids.extend(parts.iter().map(|part| self.ids[part.symbol as usize]));
    }
}

/// The symbols of a piece at the places where they start, linked to both sides.
struct Row {
    symbols: Vec<u32>,
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl Row {
    fn new(bytes: &[u8]) -> Row {
        // A piece is at most MAX_PIECE_BYTES long, so places fit u32.
        let n = bytes.len() as u32;
        let symbols = bytes.iter().map(|byte| u32::from(*byte)).collect();
        Row { symbols, next: (1..=n).collect(), previous: (0..n).map(|i| i.wrapping_sub(1)).collect() }
    }

    /// Merges the pair at `at` if it still has that rank; gives the ranks and places of the pairs that arise.
    fn merge(&mut self, merges: &Merges, rank: u32, at: u32) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (n, left, after) = (self.symbols.len() as u32, self.symbols[at as usize], self.next[at as usize]);
        let mut new = [(NONE, 0); 2];
        if left != NONE && after < n && merges.rank(left, self.symbols[after as usize]) == rank {
            let symbol = merges.made_by(rank);
            let (before, beyond) = (self.previous[at as usize], self.next[after as usize]);
            self.symbols[at as usize] = symbol;
            self.symbols[after as usize] = NONE;
            self.next[at as usize] = beyond;
            if beyond < n {
                self.previous[beyond as usize] = at;
                new[0] = (merges.rank(symbol, self.symbols[beyond as usize]), at);
            }
            if before < n {
                new[1] = (merges.rank(self.symbols[before as usize], symbol), before);
            }
        }
        new.into_iter().filter(|(rank, _)| *rank != NONE)
    }
}

/// The first token that two rows share, by its place in each; the second row starts at `shift`.
fn shared(row: &[Part], shifted: &[Part], shift: u32) -> Option<(usize, usize)> {
    let (mut i, mut j) = (0, 0);
    while i < row.len() && j < shifted.len() {
        match row[i].start.cmp(&(shifted[j].start + shift)) {
            Ordering::Less => i += 1,
            Ordering::Greater => j += 1,
            Ordering::Equal if row[i].symbol == shifted[j].symbol => return Some((i, j)),
            Ordering::Equal => (i, j) = (i + 1, j + 1),
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pretokenize::Pattern;
    use proptest::prelude::*;

    /// Some merges over `a b c`, in an order that no trainer would give.
    pub(crate) fn odd_vocab(merges: &[(u8, u8)]) -> Vocab {
        let mut rows: Vec<(u32, u32)> = Vec::new();
        for (left, right) in merges {
            let id = |i: u8| match 97 + (i as usize % (3 + rows.len())) {
                byte @ 97..=99 => byte as u32,
                merge => 256 + merge as u32 - 100,
            };
            let row = (id(*left), id(*right));
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        Vocab::trained(Pattern::Gpt2, &rows, &["<s>".into(), "<s><t>".into()]).unwrap()
    }

    /// The rule, word for word.
    fn merge_slowly(vocab: &Vocab, piece: &[u8]) -> Vec<u32> {
        let rank = |left: u32, right: u32| vocab.merges().iter().position(|merge| (merge.left, merge.right) == (left, right));
        let mut ids: Vec<u32> = piece.iter().map(|byte| vocab.byte_ids()[*byte as usize]).collect();
        while let Some((rank, i)) = (1..ids.len()).filter_map(|i| Some((rank(ids[i - 1], ids[i])?, i))).min() {
            ids.splice(i - 1..=i, [vocab.merges()[rank].id]);
        }
        ids
    }

    fn merge(merges: &Merges, piece: &[u8]) -> Vec<u32> {
        let mut ids = Vec::new();
        merges.merge(piece, &mut ids);
        ids
    }

    fn letters(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'c']), length)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn merging_equals_the_rule(rows in prop::collection::vec(any::<(u8, u8)>(), 0..12), piece in letters(1..70)) {
            let vocab = odd_vocab(&rows);
            let merges = Merges::new(&vocab);
            let (expected, mut parts, mut whole) = (merge_slowly(&vocab, &piece), Vec::new(), Vec::new());
            merges.merge_by_rank(&piece, &mut parts);
            merges.append(&parts, &mut whole);
            prop_assert_eq!(merge(&merges, &piece), &expected[..]);
            prop_assert_eq!(whole, expected);
        }

        #[test]
        fn windows_equal_the_whole(
            rows in prop::collection::vec(any::<(u8, u8)>(), 0..60),
            unit in letters(1..30),
            end in letters(0..30),
            length in 65usize..2000,
        ) {
            let piece: Vec<u8> = unit.iter().copied().cycle().take(length).chain(end).collect();
            let merges = Merges::new(&odd_vocab(&rows));
            let (mut parts, mut whole) = (Vec::new(), Vec::new());
            merges.merge_by_rank(&piece, &mut parts);
            merges.append(&parts, &mut whole);
            prop_assert_eq!(merge(&merges, &piece), whole);
        }

        #[test]
        fn merges_learnt_from_a_long_piece_give_it_by_the_rule(
            runs in prop::collection::vec((prop::sample::select(vec![b'a', b'b', b'c']), 1usize..16), 8..40),
            n_merges in 0usize..80,
        ) {
            let piece: Vec<u8> = runs.iter().flat_map(|&(letter, n)| std::iter::repeat_n(letter, n)).collect();
            let mut counts = crate::Counts::new();
            counts.add(&piece, 1).unwrap();
            let learnt = crate::learn(counts, n_merges, None, &mut crate::Job::new(Some(1), &mut |_| true).unwrap()).unwrap().merges;
            let vocab = Vocab::trained(Pattern::Gpt2, &learnt, &[]).unwrap();
            prop_assert_eq!(merge(&Merges::new(&vocab), &piece), merge_slowly(&vocab, &piece));
        }
    }

    #[test]
    fn several_merges_may_make_one_token() {
        let bytes = (0..=255u8).map(|byte| (vec![byte], 300 - u32::from(byte)));
        let tokens = bytes.chain([(b"ab".to_vec(), 301), (b"bc".to_vec(), 302), (b"abc".to_vec(), 303)]).collect();
        let row = |left: &[u8], right: &[u8]| (left.to_vec(), right.to_vec());
        let rows = [row(b"a", b"b"), row(b"b", b"c"), row(b"a", b"bc"), row(b"ab", b"c"), row(b"abc", b"abc")];
        let tokens: Vec<(Vec<u8>, u32)> = [tokens, vec![(b"abcabc".to_vec(), 304)]].concat();
        let vocab = Vocab::from_tokens(Pattern::Gpt2, tokens, &rows, vec![], false).unwrap();
        for piece in ["abc", "bc", "abcabc", "aabcc", "abcabcabc"] {
            assert_eq!(merge(&Merges::new(&vocab), piece.as_bytes()), merge_slowly(&vocab, piece.as_bytes()), "{piece}");
        }
    }
}
