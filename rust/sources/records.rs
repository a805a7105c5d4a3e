//! What a reader of a file format hands on: records, in order, in chunks, in bounded memory.

use crate::error::{Error, Result};
use std::io;
use std::path::Path;

/// Takes the records of one input, in order. An error it returns ends the reading.
pub trait Records {
    /// A record begins at this byte of the input, counted after unpacking.
    ///
    /// # Errors
    ///
    /// The caller has given up, or what is behind it failed.
    fn begin(&mut self, offset: u64) -> Result<()>;

    /// More of the record's text: raw bytes, cut anywhere, not yet known to be UTF-8.
    ///
    /// # Errors
    ///
    /// As [`Records::begin`].
    fn text(&mut self, bytes: &[u8]) -> Result<()>;

    /// The record is whole; in the input it ended before this byte.
    ///
    /// # Errors
    ///
    /// As [`Records::begin`].
    fn end(&mut self, offset: u64) -> Result<()>;

    /// A record between these bytes that cannot be used was left out, because the caller said to leave such out.
    ///
    /// # Errors
    ///
    /// As [`Records::begin`].
    fn refuse(&mut self, offset: u64, end: u64) -> Result<()>;

    /// A record whose text lies there whole.
    ///
    /// # Errors
    ///
    /// As [`Records::begin`].
    fn whole(&mut self, text: &[u8], offset: u64, end: u64) -> Result<()> {
        self.begin(offset)?;
        self.text(text)?;
        self.end(end)
    }
}

/// What becomes of a record that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends the reading, named by file and place.
    Error,
    /// It is left out and counted.
    Skip,
}

/// The caller has given up: what a stream says in place of data.
#[derive(Debug)]
pub struct GivenUp;

impl std::fmt::Display for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("given up")
    }
}

impl std::error::Error for GivenUp {}

/// Ties a stream's error to its file: damage (`InvalidData`, `UnexpectedEof`) is a matter of format, the rest of the system.
pub fn stream_error(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| match error.kind() {
        _ if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<GivenUp>) => Error::Cancelled,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Error::Format(format!("{}: {error}", path.display())),
        _ => Error::Io { path: path.to_path_buf(), source: error },
    }
}
