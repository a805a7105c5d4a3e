//! The tokenizer and the corpus of tinygpt: text becomes byte-pair tokens in memory-mapped shards.
//!
//! The main path, from texts to shards:
//!
//! ```
//! use tinygpt::{Cleaning, Encoder, Job, Pattern, Shards, Texts, Vocab, count_pieces, encode_to_shards, learn};
//!
//! let texts = ["ab abc", "abc ab"];
//! let mut proceed = |_bytes_done| true;
//! let mut job = Job::new(Some(2), &mut proceed)?;
//!
//! let mut source = Texts::new(&texts, Pattern::Gpt2, None, 1 << 20);
//! let (counts, _) = count_pieces(&mut source, &Pattern::Gpt2, &[], &Cleaning::none(), &mut job)?;
//! let merges = learn(counts, 10, &mut job)?;
//! let vocab = Vocab::trained(Pattern::Gpt2, &merges, &["<|endoftext|>".into()])?;
//! let encoder = Encoder::new(vocab);
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! let mut shards = Shards::new(folder, &encoder, Some(259), 1_000_000, 0.0)?;
//! let mut source = Texts::new(&texts, Pattern::Gpt2, Some(0.0), 1 << 20);
//! encode_to_shards(&mut source, &encoder, &Cleaning::none(), &mut shards, &mut job)?;
//! let [train, _] = shards.finish()?;
//! assert_eq!(train[0].documents, 2);
//! # Ok::<(), tinygpt::Error>(())
//! ```
//!
//! Reading order: this page, `pipeline`, `learn`, `encode`, `pretokenize`, `sources`, `shard`.

mod added;
mod cache;
mod clean;
mod count;
mod countfile;
mod decode;
mod derivation;
mod encode;
mod error;
mod job;
mod key;
mod learn;
mod memory;
mod merge;
mod parallel;
mod pipeline;
mod pretokenize;
#[cfg(feature = "python")]
mod python;
mod shard;
mod shardset;
mod sources;
mod vocab;

pub use added::{AddedFinder, AddedToken, Flags, Segment};
pub use cache::Cache;
pub use clean::{RULES, clean, rules};
pub use count::Counts;
pub use countfile::{load_counts, save_counts};
pub use encode::{Encoder, Specials};
pub use error::{Error, Result};
pub use job::{Job, Progress};
pub use learn::learn;
pub use pipeline::{Cleaning, Report, count_pieces, encode_to_shards};
pub use pretokenize::{Custom, MAX_PIECE_BYTES, Pattern, Pieces};
pub use shard::{HEADER_BYTES, MAX_SHARD_TOKENS, ShardFacts, ShardKind, ShardWriter, TokenType, hash_file};
pub use shardset::Shards;
pub use sources::{Block, Documents, Part, Sample, SampleSize, Side, Source, TextFile, TextFiles, Texts, last_cut, list_files};
pub use vocab::{Merge, Vocab};
