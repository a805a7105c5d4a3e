//! Tokens added to a vocabulary beside its merges, and how text is searched for them.
//!
//! They are found as Hugging Face tokenizers finds them: the leftmost first, the longest of those, in two passes where
//! some are to be looked for in what the others leave. What was found and then refused (`single_word`) hides no other.
//!
//! Source: huggingface/tokenizers, `tokenizer/added_vocabulary.rs`.

use crate::error::{Error, Result};
use aho_corasick::{AhoCorasick, MatchKind};
use rustc_hash::FxHashSet;

/// Bytes of one added token.
const MAX_CONTENT_BYTES: usize = 1 << 10;
/// Bytes of all added tokens together, so that a hostile file cannot ask for a boundless automaton.
const MAX_TOTAL_BYTES: usize = 1 << 22;

/// How an added token is looked for, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// It is no text: found only where the caller allows it.
    pub const SPECIAL: Flags = Flags(1);
    /// White space before it vanishes into it.
    pub const LSTRIP: Flags = Flags(2);
    /// White space after it vanishes into it.
    pub const RSTRIP: Flags = Flags(4);
    /// It is found only where no word character stands beside it.
    pub const SINGLE_WORD: Flags = Flags(8);
    /// It is looked for in what the tokens without this flag leave (`normalized` in tokenizers).
    pub const LATE: Flags = Flags(16);

    /// Flags out of bits; `None` if there are others among them.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Flags> {
        (bits < 32).then_some(Flags(bits))
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether all flags of `other` are set.
    #[must_use]
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

/// A token beside the merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text, or its name if it is special.
    pub content: String,
    /// Its id.
    pub id: u32,
    /// How it is looked for.
    pub flags: Flags,
}

impl AddedToken {
    /// A special token without further flags.
    #[must_use]
    pub fn special(name: &str, id: u32) -> AddedToken {
        AddedToken { content: name.into(), id, flags: Flags::SPECIAL }
    }

    /// Whether it is found only where the caller allows it.
    #[must_use]
    pub fn is_special(&self) -> bool {
        self.flags.has(Flags::SPECIAL)
    }

    /// What messages call it.
    pub(crate) fn kind(&self) -> &'static str {
        if self.is_special() { "special token" } else { "added token" }
    }

    /// What keeps it from being found in every text, given back on decoding, and found alike in a text and its parts.
    fn check(&self) -> Result<()> {
        let name = &self.content;
        let refuse = |what: String| Err(Error::Invalid(what));
        if name.is_empty() {
            return refuse(format!("the name of {} {} is empty", self.kind(), self.id));
        }
        if name.len() > MAX_CONTENT_BYTES {
            return refuse(format!("an added token has {} bytes, and the longest may have {MAX_CONTENT_BYTES}", name.len()));
        }
        if self.is_special() {
            return Ok(());
        }
        if self.flags.has(Flags::LSTRIP) || self.flags.has(Flags::RSTRIP) {
            return refuse(format!(
                "the added token {name:?} takes white space away (lstrip or rstrip), and decoding could not give it back"
            ));
        }
        // Files are encoded in parts, cut before a space or line feed that follows a character which is no white space.
        let mut before = if self.flags.has(Flags::SINGLE_WORD) { 'x' } else { ' ' };
        for character in name.chars() {
            if matches!(character, ' ' | '\n') && !before.is_whitespace() {
                return refuse(format!("the added token {name:?} holds a space or line feed where text may be cut in two"));
            }
            before = character;
        }
        Ok(())
    }
}

/// Checks added tokens and puts them in the order of their ids.
///
/// # Errors
///
/// A content that is empty, double or too long, an id given twice, or a token that no text could rely on.
pub(crate) fn checked(mut added: Vec<AddedToken>) -> Result<Vec<AddedToken>> {
    added.sort_by_key(|token| token.id);
    let mut names = FxHashSet::default();
    let total: usize = added.iter().map(|token| token.content.len()).sum();
    if total > MAX_TOTAL_BYTES {
        return Err(Error::Invalid(format!("the added tokens have {total} bytes, and together they may have {MAX_TOTAL_BYTES}")));
    }
    for (i, token) in added.iter().enumerate() {
        token.check()?;
        let name = &token.content;
        if !names.insert(name) {
            return Err(Error::Invalid(format!("the {} {name:?} is named twice", token.kind())));
        }
        if let Some(other) = i.checked_sub(1).map(|i| &added[i]).filter(|other| other.id == token.id) {
            return Err(Error::Invalid(format!("the {}s {:?} and {name:?} have the same id {}", token.kind(), other.content, token.id)));
        }
    }
    // Late after nothing is not late.
    if added.iter().all(|token| token.flags.has(Flags::LATE)) {
        for token in &mut added {
            token.flags = token.flags.without(Flags::LATE);
        }
    }
    Ok(added)
}

/// A stretch of a text that was searched for added tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// Ordinary text, to be split and merged.
    Text(&'a str),
    /// An added token.
    Id(u32),
}

/// Finds added tokens in text.
#[derive(Debug, Default)]
pub struct AddedFinder {
    early: Option<Pass>,
    late: Option<Pass>,
}

#[derive(Debug)]
struct Pass {
    automaton: AhoCorasick,
    /// Id and flags of each pattern.
    tokens: Vec<(u32, Flags)>,
}

impl AddedFinder {
    /// Finds `tokens`, which a vocabulary has checked.
    ///
    /// # Errors
    ///
    /// The tokens are too large for an automaton.
    pub fn new<'t>(tokens: impl Iterator<Item = &'t AddedToken>) -> Result<AddedFinder> {
        let (late, early): (Vec<_>, Vec<_>) = tokens.partition(|token| token.flags.has(Flags::LATE));
        Ok(AddedFinder { early: Pass::new(&early)?, late: Pass::new(&late)? })
    }

    /// Finds `names` as they stand.
    ///
    /// # Errors
    ///
    /// The names are too large for an automaton.
    pub fn of_names(names: &[String]) -> Result<AddedFinder> {
        let tokens: Vec<AddedToken> = names.iter().map(|name| AddedToken::special(name, 0)).collect();
        AddedFinder::new(tokens.iter())
    }

    /// Whether there is nothing to find.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.early.is_none() && self.late.is_none()
    }

    /// Whether a token is found only where no word character stands beside it.
    pub(crate) fn minds_words(&self) -> bool {
        let mut tokens = [&self.early, &self.late].into_iter().flatten().flat_map(|pass| &pass.tokens);
        tokens.any(|(_, flags)| flags.has(Flags::SINGLE_WORD))
    }

    /// Whether any token stands in `text`, its flags aside.
    #[must_use]
    pub fn finds_any(&self, text: &str) -> bool {
        [&self.early, &self.late].into_iter().flatten().any(|pass| pass.automaton.is_match(text))
    }

    /// Calls `each` with the segments of `text`, in order.
    #[inline]
    pub fn split<'a>(&self, text: &'a str, mut each: impl FnMut(Segment<'a>)) {
        match (&self.early, &self.late) {
            (None, None) => each(Segment::Text(text)),
            (Some(pass), None) | (None, Some(pass)) => pass.split(text, &mut each),
            (Some(early), Some(late)) => early.split(text, &mut |segment| match segment {
                Segment::Text(rest) => late.split(rest, &mut each),
                Segment::Id(_) => each(segment),
            }),
        }
    }
}

impl Pass {
    fn new(tokens: &[&AddedToken]) -> Result<Option<Pass>> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let contents = tokens.iter().map(|token| &token.content);
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(contents);
        let automaton = built.map_err(|e| Error::Invalid(format!("added tokens: {e}")))?;
        Ok(Some(Pass { automaton, tokens: tokens.iter().map(|token| (token.id, token.flags)).collect() }))
    }

    fn split<'a>(&self, text: &'a str, each: &mut impl FnMut(Segment<'a>)) {
        let mut from = 0;
        for found in self.automaton.find_iter(text) {
            let (id, flags) = self.tokens[found.pattern()];
            let (mut start, mut end) = (found.start(), found.end());
            if flags.has(Flags::SINGLE_WORD) && (ends_in_word(&text[..start]) || starts_with_word(&text[end..])) {
                continue;
            }
            if flags.has(Flags::LSTRIP) {
                start = text[..start].trim_end().len().max(from);
            }
            if flags.has(Flags::RSTRIP) {
                end = text.len() - text[end..].trim_start().len();
            }
            if from < start {
                each(Segment::Text(&text[from..start]));
            }
            // What an earlier token has taken with its white space is not found again.
            if start < end {
                each(Segment::Id(id));
            }
            from = end;
        }
        if from < text.len() {
            each(Segment::Text(&text[from..]));
        }
    }
}

/// Whether word characters stand on both sides of a place, so that a token of whole words may end or start there by a cut.
pub(crate) fn divides_word(text: &str, at: usize) -> bool {
    ends_in_word(&text[..at]) && starts_with_word(&text[at..])
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn starts_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

/// `\w`
fn is_word(character: char) -> bool {
    // An error would mean that the tables were left out of the build; they are in, so says Cargo.toml.
    regex_syntax::try_is_word_character(character).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(content: &str, id: u32, bits: u8) -> AddedToken {
        AddedToken { content: content.into(), id, flags: Flags::from_bits(bits).unwrap() }
    }

    fn split(tokens: &[AddedToken], text: &str) -> Vec<String> {
        let mut segments = Vec::new();
        AddedFinder::new(tokens.iter()).unwrap().split(text, |segment| {
            segments.push(match segment {
                Segment::Text(text) => text.to_string(),
                Segment::Id(id) => format!("#{id}"),
            });
        });
        segments
    }

    #[test]
    fn added_tokens_are_found_by_their_flags() {
        let (left, right, word, late) = (2, 4, 8, 16);
        for (tokens, text, expected) in [
            (vec![], "", vec![""]),
            (vec![], "ab", vec!["ab"]),
            (vec![token("<s>", 1, 0), token("<s><t>", 2, 0)], "a<s><t><s>", vec!["a", "#2", "#1"]),
            (vec![token("<s>", 1, left)], "a \n<s> b", vec!["a", "#1", " b"]),
            (vec![token("<s>", 1, right)], "a <s>\u{3000} b", vec!["a ", "#1", "b"]),
            (vec![token("<s>", 1, left | right)], " <s>  <s> ", vec!["#1", "#1"]),
            (vec![token(" ", 1, left | right)], "a  b", vec!["a", "#1", "b"]),
            (vec![token("cat", 1, word)], "cat scat cat\u{301} cat\u{b2} _cat", vec!["#1", " scat cat\u{301} ", "#1", "\u{b2} _cat"]),
            (vec![token("abc", 1, word), token("bc", 2, 0)], "xabc bc", vec!["xabc ", "#2"]),
            (vec![token("ab", 1, late), token("bc", 2, 0)], "abc ab", vec!["a", "#2", " ", "#1"]),
            (vec![token("a", 1, late | word), token("b", 2, 0)], "ba aa", vec!["#2", "#1", " aa"]),
        ] {
            assert_eq!(split(&tokens, text), expected, "{text:?}");
        }
    }

    #[test]
    fn tokens_that_no_text_could_rely_on_are_refused() {
        for (added, expected) in [
            (
                vec![token(" a", 1, 2)],
                "the added token \" a\" takes white space away (lstrip or rstrip), and decoding could not give it back",
            ),
            (vec![token("a b", 1, 0)], "the added token \"a b\" holds a space or line feed where text may be cut in two"),
            (vec![token("a\n", 1, 0)], "the added token \"a\\n\" holds a space or line feed where text may be cut in two"),
            (vec![token(" a", 1, 8)], "the added token \" a\" holds a space or line feed where text may be cut in two"),
            (vec![token("a", 1, 0), token("b", 1, 0)], "the added tokens \"a\" and \"b\" have the same id 1"),
            (vec![token("a", 1, 0), token("a", 2, 1)], "the special token \"a\" is named twice"),
            (vec![token("", 1, 0)], "the name of added token 1 is empty"),
        ] {
            assert_eq!(checked(added).unwrap_err().to_string(), expected);
        }
        let long = "x".repeat(MAX_CONTENT_BYTES + 1);
        assert_eq!(
            checked(vec![token(&long, 1, 1)]).unwrap_err().to_string(),
            "an added token has 1025 bytes, and the longest may have 1024"
        );
        let many = (0..5000).map(|i| token(&format!("{i:1000}"), i, 1)).collect();
        assert!(checked(many).unwrap_err().to_string().starts_with("the added tokens have 5000000 bytes"));
    }

    #[test]
    fn runs_of_white_space_may_be_tokens() {
        assert_eq!(checked(vec![token("  \n a", 1, 0), token("a b", 2, 1)]).unwrap().len(), 2);
    }

    #[test]
    fn tokens_that_are_all_late_are_not_late() {
        let flags =
            |bits: [u8; 2]| checked(vec![token("a", 1, bits[0]), token("b", 2, bits[1])]).unwrap().iter().map(|t| t.flags.0).collect();
        let found: [Vec<u8>; 2] = [[16, 17], [16, 1]].map(flags);
        assert_eq!(found, [vec![0, 1], vec![16, 1]]);
    }
}
