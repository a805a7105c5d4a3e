//! Shards being written, kept at, moved about and read back.
//!
//! [`Shards`] takes documents as tokens and writes both splits; [`Journal`] keeps how far that has got; what is written is read
//! again by [`StoredSplit`], and put into other shards by [`join`], [`copy_of_file`] and [`shuffle`].

pub(crate) mod join;
pub(crate) mod journal;
mod read;
pub(crate) mod set;
pub(crate) mod shuffle;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use join::{OldFolder, Prepared, copy_of_file, join};
pub use journal::{Due, JOURNAL_FILE, Journal};
pub use read::{ShardDocuments, StoredSplit};
pub use set::{Shards, ShardsState, Split};
pub use shuffle::{SHUFFLE_MEMORY, Shuffle, shuffle};
pub use tail::Finished;
pub use writer::{OpenShard, ShardWriter};
