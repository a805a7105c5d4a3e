//! Ids -> bytes.

use crate::error::{Error, Result};
use crate::vocab::Vocab;

/// What each id stands for, laid out for copying: most tokens are one load and one store.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Bytes of each id; 255 for longer ones, 0 for ids that stand for nothing.
    lengths: Vec<u8>,
    /// The first bytes of each id.
    starts: Vec<[u8; WIDTH]>,
}

/// Bytes that are copied at once.
const WIDTH: usize = 16;

impl Decoder {
    pub(crate) fn new(vocab: &Vocab) -> Decoder {
        let tokens = (0..vocab.len() as u32).map(|id| vocab.bytes(id).unwrap_or_default());
        let start = |token: &[u8]| std::array::from_fn(|i| token.get(i).copied().unwrap_or(0));
        let (lengths, starts) = tokens.map(|token| (token.len().min(255) as u8, start(token))).unzip();
        Decoder { lengths, starts }
    }

    /// Bytes of all `ids` together.
    ///
    /// # Errors
    ///
    /// The first id that stands for nothing, and its place.
    pub(crate) fn length(&self, vocab: &Vocab, ids: &[u32]) -> Result<usize> {
        let mut total = 0;
        for (place, id) in ids.iter().enumerate() {
            total += match self.lengths.get(*id as usize) {
                None | Some(0) => {
                    let message = format!("id {id} at place {place} is not in the vocabulary of {} ids", vocab.len());
                    return Err(Error::Invalid(message));
                }
                Some(255) => vocab.bytes(*id).map_or(0, <[u8]>::len),
                Some(length) => usize::from(*length),
            };
        }
        Ok(total)
    }

    /// Writes the bytes of `ids` to `bytes`, which is as long as [`Decoder::length`] says.
    pub(crate) fn write(&self, vocab: &Vocab, ids: &[u32], bytes: &mut [u8]) {
        let mut at = 0;
        for id in ids {
            let (length, start) = (usize::from(self.lengths[*id as usize]), &self.starts[*id as usize]);
            if length <= WIDTH
                && let Some(place) = bytes[at..].first_chunk_mut::<WIDTH>()
            {
                *place = *start;
                at += length;
            } else {
                let token = vocab.bytes(*id).unwrap_or_default();
                bytes[at..at + token.len()].copy_from_slice(token);
                at += token.len();
            }
        }
    }
}
