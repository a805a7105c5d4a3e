//! The tokenizer and the corpus of tinygpt: text becomes byte-pair tokens in memory-mapped shards.
//!
//! The main path, from texts to shards:
//!
//! ```
//! use tinygpt::{Cleaning, Counts, Cutting, Encoder, Job, Pattern, Shards, Texts, Vocab, count_pieces, encode_to_shards, learn};
//!
//! let texts = ["ab abc", "abc ab"];
//! let mut proceed = |_bytes_done| true;
//! let mut job = Job::new(Some(2), &mut proceed)?;
//!
//! let cutting = Cutting::new(Pattern::Gpt2, 1 << 20);
//! let mut source = Texts::new(&texts, 0, cutting.clone());
//! let (counts, _) = count_pieces(&mut source, &Pattern::Gpt2, &[], &Cleaning::none(), Counts::new(), &mut job)?;
//! let merges = learn(counts, 10, None, &mut job)?.merges;
//! let vocab = Vocab::trained(Pattern::Gpt2, &merges, &["<|endoftext|>".into()])?;
//! let encoder = Encoder::new(vocab);
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! let mut shards = Shards::new(folder, &encoder, Some(259), 1_000_000, 0.0)?;
//! let mut source = Texts::new(&texts, 0, cutting);
//! encode_to_shards(&mut source, &encoder, &Cleaning::none(), &mut shards, &mut job, |_, _, _| Ok(()))?;
//! let finished = shards.finish(true)?;
//! assert_eq!(finished.train[0].documents, 2);
//! # Ok::<(), tinygpt::Error>(())
//! ```
//!
//! Reading order: this page, `pipeline`, `learn`, `encode`, `pretokenize`, `sources`, `shard`.

mod added;
mod cache;
mod choice;
#[allow(dead_code, unused_imports)]
mod clean;
mod cleaning;
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
mod pairs;
mod parallel;
mod piecetable;
mod pipeline;
mod pretokenize;
#[cfg(feature = "python")]
mod python;
mod runs;
#[allow(dead_code, unused_imports)]
mod screen;
mod shard;
mod shards;
mod slots;
mod sources;
mod tally;
mod transformer;
mod vocab;

pub use added::{AddedFinder, AddedToken, Flags, Segment};
pub use cache::Cache;
pub use choice::{Coverage, MAX_PIECES_BYTES};
pub use clean::{GUTENBERG, GutenbergBody, RULES, clean, rules, split_gutenberg};
pub use cleaning::{Cleaning, Report, Reports};
pub use count::Counts;
pub use countfile::{load_counts, save_counts};
pub use encode::{Encoder, Specials};
pub use error::{Error, Result};
pub use job::{Job, Progress};
pub use learn::{Learnt, learn};
pub use pipeline::{count_pieces, encode_to_shards, judge_documents};
pub use pretokenize::{Custom, MAX_PIECE_BYTES, Pattern, Pieces};
pub use screen::{Filters, Languages, NearOptions, Preset, Removed, Verdicts};
pub use shard::{HEADER_BYTES, MAX_SHARD_TOKENS, Origin, ShardFacts, ShardHeader, ShardKind, TokenType, hash_file};
pub use shards::{
    Due, Finished, JOURNAL_FILE, Journal, OldFolder, OpenShard, Prepared, SHUFFLE_MEMORY, ShardDocuments, ShardWriter, Shards, ShardsState,
    Shuffle, Split, StoredSplit, copy_of_file, join, shuffle,
};
pub use sources::{
    Amount, Block, Choice, Cutter, Cutting, Documents, Ends, Format, Found, InputFile, Inputs, LeftOut, Listing, Malformed, OpenRows,
    Outlet, Part, Passage, Position, Reading, Records, Rows, Sample, SampleSize, Selection, Side, Source, Texts, last_cut, list_files,
};
pub use transformer::{Activation, Decoder, Feed, Norm, Places, Precision, Shape, Tensors};
pub use vocab::{Merge, Vocab};
