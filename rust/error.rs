//! What can go wrong, in four kinds.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The one error type of the crate.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused; the file it was about comes first.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is damaged or not what it should be; the message names it.
    Format(String),
    /// An argument is out of range; the message says what was found and what would do.
    Invalid(String),
    /// The caller asked to stop.
    Cancelled,
}

/// The result of anything that may fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Ties an I/O error to its file.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
        move |source| Error::Io { path: path.to_path_buf(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Format(message) | Error::Invalid(message) => f.write_str(message),
            Error::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
