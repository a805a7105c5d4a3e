//! A regular expression of the user's as a pattern.
//!
//! The engine is that of the regex crate: no backtracking, hence no look-around and no possessive repetition. One look-ahead
//! is known, for published patterns need it: `\s+(?!\S)` as an alternative of its own is a run of white space without its
//! last character, or all of the run where it ends the text.

use super::alternatives::window;
use crate::error::{Error, Result};
use regex_automata::meta::{BuildError, Config, Regex};
use regex_automata::{Anchored, Input, PatternID};
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{self, Ast, Span, Visitor};
use regex_syntax::hir::Hir;
use regex_syntax::hir::translate::Translator;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Longest expression.
const MAX_EXPRESSION_BYTES: usize = 1 << 12;
/// Memory of a compiled expression; those of published patterns take a tenth of it.
const MAX_COMPILED_BYTES: usize = 10 << 20;
/// The alternative that may look ahead, and what is compiled for it: as long, so that places in the expression stay.
const RUN: &str = r"\s+(?!\S)";
const RUN_COMPILED: &str = r"(?-U:\s+)";
/// The parts of an expression that holds a run: the alternatives before it, the run, those after it.
const RUN_ID: PatternID = PatternID::new_unchecked(1);
const AFTER_ID: PatternID = PatternID::new_unchecked(2);

/// A regular expression whose matches, and the stretches between them, are pieces.
///
/// A match is looked for within [`super::MAX_PIECE_BYTES`] from where its piece starts, in time linear in that.
pub struct Custom {
    expression: String,
    regex: Regex,
    has_run: bool,
}

impl Custom {
    /// Compiles `expression`.
    ///
    /// # Errors
    ///
    /// It is no regular expression, looks around, matches the empty text or nothing at all, or is too large.
    ///
    /// # Example
    ///
    /// ```
    /// let words = tinygpt::Custom::new(r"\w+")?;
    /// let pattern = tinygpt::Pattern::Custom(words.into());
    /// assert_eq!(pattern.pieces("two words").collect::<Vec<_>>(), [&b"two"[..], b" ", b"words"]);
    /// # Ok::<(), tinygpt::Error>(())
    /// ```
    pub fn new(expression: &str) -> Result<Custom> {
        if expression.len() > MAX_EXPRESSION_BYTES {
            let length = expression.len();
            return Err(refusal(format_args!("is {length} bytes long; at most {MAX_EXPRESSION_BYTES} will do")));
        }
        let run = split_at_run(expression)?;
        let has_run = run.is_some();
        let parts = match run {
            Some(parts) => parts,
            None => vec![translate(expression, &parse(expression)?)?],
        };
        let shortest: Vec<usize> = parts.iter().filter_map(|part| part.properties().minimum_len()).collect();
        match shortest.iter().min() {
            None => return Err(refusal("matches no text at all")),
            Some(0) => return Err(refusal("matches the empty text; a piece has at least one character")),
            Some(_) => {}
        }
        let config = Config::new().nfa_size_limit(Some(MAX_COMPILED_BYTES));
        let regex = Regex::builder().configure(config).build_many_from_hir(&parts).map_err(|error| too_large(&error))?;
        Ok(Custom { expression: expression.into(), regex, has_run })
    }

    /// The expression as it was given.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Where the piece that starts at `start` ends; `start` is a character boundary before the end of `text`.
    pub(super) fn piece_end(&self, text: &str, start: usize) -> usize {
        let end = window(text, start).len();
        self.match_end(text, start, end).unwrap_or_else(|| self.next_match(text, start, end))
    }

    /// End of the match at `start`.
    fn match_end(&self, text: &str, start: usize, end: usize) -> Option<usize> {
        let input = Input::new(text).span(start..end);
        let found = self.regex.search_half(&input.clone().anchored(Anchored::Yes))?;
        if !self.has_run || found.pattern() != RUN_ID {
            return Some(found.offset());
        }
        // What stands after the window may be white space, too.
        if text[found.offset()..].chars().next().is_none_or(char::is_whitespace) {
            return Some(found.offset());
        }
        let last = text[start..found.offset()].char_indices().next_back().map_or(0, |(at, _)| at);
        if last > 0 {
            return Some(start + last);
        }
        self.regex.search_half(&input.anchored(Anchored::Pattern(AFTER_ID))).map(|found| found.offset())
    }

    /// Start of the first match after `start`, where there is none.
    fn next_match(&self, text: &str, start: usize, end: usize) -> usize {
        let mut from = start;
        loop {
            from += text[from..end].chars().next().map_or(1, char::len_utf8);
            match self.regex.search(&Input::new(text).span(from..end)) {
                None => return end,
                Some(found) if self.has_run && self.match_end(text, found.start(), end).is_none() => from = found.start(),
                Some(found) => return found.start(),
            }
        }
    }
}

/// The alternatives before the run, the run and those after it; `None` if no alternative is the run.
fn split_at_run(expression: &str) -> Result<Option<Vec<Hir>>> {
    let starts = |at: &usize| *at == 0 || expression[..*at].ends_with('|');
    let Some(at) = expression.match_indices(RUN).map(|(at, _)| at).find(starts) else { return Ok(None) };
    let plain = [&expression[..at], RUN_COMPILED, &expression[at + RUN.len()..]].concat();
    let ast = parse(&plain)?;
    let alternatives = match &ast {
        Ast::Alternation(all) => &all.asts[..],
        one => std::slice::from_ref(one),
    };
    let is_run = |one: &Ast| (one.span().start.offset, one.span().end.offset) == (at, at + RUN.len());
    let Some(run) = alternatives.iter().position(is_run) else { return Ok(None) };
    if let Some(flags) = alternatives.iter().find_map(open_flags) {
        return Err(refusal_at(&plain, flags, "changes alternatives on both sides of the run; write (?i:...) in each"));
    }
    let union = |of: &[Ast]| Ok(Hir::alternation(of.iter().map(|one| translate(&plain, one)).collect::<Result<_>>()?));
    [&alternatives[..run], &alternatives[run..=run], &alternatives[run + 1..]].into_iter().map(union).collect::<Result<_>>().map(Some)
}

/// Flags that reach into the alternatives that follow.
fn open_flags(alternative: &Ast) -> Option<&Span> {
    match alternative {
        Ast::Flags(flags) => Some(&flags.span),
        Ast::Concat(all) => all.asts.iter().find_map(open_flags),
        _ => None,
    }
}

fn parse(expression: &str) -> Result<Ast> {
    let ast = Parser::new().parse(expression).map_err(|error| {
        let before = &expression[..error.span().start.offset];
        match error.kind() {
            ast::ErrorKind::UnsupportedLookAround => looks_around(expression, error.span()),
            _ if before.ends_with("(?") => refusal_at(expression, error.span(), "stands where (?:...) groups and (?i) sets flags"),
            kind => refusal_at(expression, error.span(), &format!("is wrong: {kind}")),
        }
    })?;
    ast::visit(&ast, Checks { expression })?;
    Ok(ast)
}

fn translate(expression: &str, ast: &Ast) -> Result<Hir> {
    let error = |error: regex_syntax::hir::Error| refusal_at(expression, error.span(), &format!("is wrong: {}", error.kind()));
    Translator::new().translate(expression, ast).map_err(error)
}

/// Refuses what would not mean here what it means to other engines.
struct Checks<'a> {
    expression: &'a str,
}

impl Visitor for Checks<'_> {
    type Output = ();
    type Err = Error;

    fn finish(self) -> Result<()> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<()> {
        match ast {
            Ast::Assertion(assertion) => Err(looks_around(self.expression, &assertion.span)),
            Ast::Repetition(outer) => match &*outer.ast {
                Ast::Repetition(inner) => {
                    let both = Span::new(inner.op.span.start, outer.op.span.end);
                    let single = &self.expression[inner.op.span.start.offset..inner.op.span.end.offset];
                    Err(refusal_at(self.expression, &both, &format!("is possessive, which needs backtracking; write {single}")))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

fn looks_around(expression: &str, span: &Span) -> Error {
    refusal_at(expression, span, &format!("looks around; only {RUN} may, as an alternative of its own"))
}

fn refusal_at(expression: &str, span: &Span, what: &str) -> Error {
    let found = &expression[span.start.offset..span.end.offset];
    let at = expression[..span.start.offset].chars().count();
    refusal(format_args!("cannot be used: {found:?} at character {at} {what}"))
}

fn too_large(error: &BuildError) -> Error {
    match error.size_limit() {
        Some(limit) => refusal(format_args!("takes more than {limit} bytes compiled; repeat less in it")),
        None => refusal(format_args!("cannot be compiled: {error}")),
    }
}

fn refusal(what: impl fmt::Display) -> Error {
    Error::Invalid(format!("the regular expression {what}"))
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

impl Eq for Custom {}

impl Hash for Custom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.expression.hash(state);
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Custom").field(&self.expression).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretokenize::alternatives::tests::{EXPRESSIONS, harder_text};
    use crate::{MAX_PIECE_BYTES, Pattern};
    use proptest::prelude::*;

    fn custom(expression: &str) -> Pattern {
        Pattern::Custom(Custom::new(expression).unwrap().into())
    }

    /// The patterns that a linear-time engine knows, each with its expression.
    fn named() -> impl Iterator<Item = (Pattern, Pattern)> {
        let published = EXPRESSIONS.into_iter().filter(|(pattern, _)| *pattern != Pattern::Cl100kTrailing);
        let published = published.map(|(pattern, expression)| (pattern, custom(&(expression.to_string() + r"\s+(?!\S)|\s+"))));
        published.chain([(Pattern::Char, custom("(?s)."))])
    }

    #[test]
    fn a_named_pattern_equals_its_expression() {
        for (pattern, custom) in named() {
            proptest!(ProptestConfig::with_cases(1000), |(text in harder_text())| {
                let expected: Vec<&[u8]> = pattern.pieces(&text).collect();
                prop_assert_eq!(custom.pieces(&text).collect::<Vec<_>>(), expected, "{}", pattern.name());
            });
        }
    }

    #[test]
    fn a_named_pattern_equals_its_expression_where_long_pieces_are_cut() {
        for (pattern, custom) in named().filter(|(pattern, _)| *pattern != Pattern::Char) {
            for unit in ["a", "A", "é", "字", "!", " ", "\n", "\u{3000}"] {
                for end in ["", "x", "'s", "\n", "a\n", " a", "  1", "'ſA/\n"] {
                    for room in 0..5 {
                        let text = unit.repeat((MAX_PIECE_BYTES - room) / unit.len()) + end;
                        let [one, two] = [&pattern, &custom].map(|pattern| pattern.pieces(&text).map(<[u8]>::len).collect::<Vec<_>>());
                        assert_eq!(one, two, "{} {unit:?} {room} {end:?}", pattern.name());
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_add_up_whatever_is_matched(text in harder_text()) {
            for expression in ["a", r"\w+", r"\s+(?!\S)", r"1|\s+(?!\S)|\s", r"[^\x00-\x7f]{2}|ll|\s+(?!\S)| S", "(?i:s)+?", r"(?s:.{3})"] {
                let pattern = custom(expression);
                let pieces: Vec<&[u8]> = pattern.pieces(&text).collect();
                prop_assert!(pieces.iter().all(|piece| !piece.is_empty()), "{}", expression);
                prop_assert_eq!(pieces.concat(), text.as_bytes(), "{}", expression);
            }
        }
    }

    #[test]
    fn alternatives_keep_their_order_around_the_run() {
        for (expression, expected) in [
            (r"\s+(?!\S)|\s+", ["a", "  ", " ", "b", " ", "c", "  "].as_slice()),
            (r"\s+(?!\S)", &["a", "  ", " b c", "  "]),
            (r"\s+(?!\S)|\s\w", &["a", "  ", " b", " c", "  "]),
            (r"\s\w|\s+(?!\S)", &["a", "  ", " b", " c", "  "]),
            (r"\s{3}|\s+(?!\S)|\s", &["a", "   ", "b", " ", "c", "  "]),
            (r"\s|\s+(?!\S)", &["a", " ", " ", " ", "b", " ", "c", " ", " "]),
            (r"[|\s+(?!\S)|]", &["a", " ", " ", " ", "b", " ", "c", " ", " "]),
        ] {
            let pieces: Vec<String> = custom(expression).pieces("a   b c  ").map(|piece| String::from_utf8_lossy(piece).into()).collect();
            assert_eq!(pieces, expected, "{expression}");
        }
    }

    #[test]
    fn what_is_refused_is_named() {
        let many = "a|".repeat(3000) + "a";
        for (expression, message) in [
            ("a(?=b)", r#""(?=" at character 1 looks around; only \s+(?!\S) may, as an alternative of its own"#),
            ("é(?!b)", r#""(?!" at character 1 looks around"#),
            ("(?<=b)a", r#""(?<=" at character 0 looks around"#),
            ("(?<!b)a", r#""(?<!" at character 0 looks around"#),
            (r"(a|\s+(?!\S)|b)", r#""(?!" at character 6 looks around"#),
            (r"a\s+(?!\S)", r#""(?!" at character 4 looks around"#),
            (r"\s+(?!\S)|a|\s+(?!\S)", r#""(?!""#),
            (r"\\s+(?!\S)", r#""(?!""#),
            (r"\bword", r#""\\b" at character 0 looks around"#),
            ("^a", r#""^" at character 0 looks around"#),
            (r"\s+(?!\S)|a$", r#""$" at character 11 looks around"#),
            (r"\p{L}++", r#""++" at character 5 is possessive, which needs backtracking; write +"#),
            ("a?+b", r#""?+" at character 1 is possessive, which needs backtracking; write ?"#),
            ("[a-c]{1,3}+", r#""{1,3}+" at character 5 is possessive, which needs backtracking; write {1,3}"#),
            ("(?>a)", r#"">" at character 2 stands where (?:...) groups"#),
            (r"(a)\1", r#""\\1" at character 3 is wrong: backreferences are not supported"#),
            ("(a", r#""(" at character 0 is wrong: unclosed group"#),
            (r"\p{Foo}", r#""\\p{Foo}" at character 0 is wrong: Unicode property not found"#),
            (r"(?-u:\xff)", "at character 5 is wrong"),
            (r"(?i)a|\s+(?!\S)", r#""(?i)" at character 0 changes alternatives on both sides"#),
            ("", "matches the empty text"),
            ("a*", "matches the empty text"),
            (r"a||\s+(?!\S)", "matches the empty text"),
            ("[a&&b]", "matches no text at all"),
            (r"(\w{1000}){1000}", "takes more than 10485760 bytes compiled"),
            (&many, "is 6001 bytes long; at most 4096 will do"),
        ] {
            let error = Custom::new(expression).unwrap_err().to_string();
            assert!(error.starts_with("the regular expression ") && error.contains(message), "{expression:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_hostile_expression_is_refused_soon() {
        for expression in ["((((a{100}){100}){100}){100})".to_string(), "(".repeat(2000), "(?i)".to_string() + &r"\p{L}".repeat(800)] {
            assert!(Custom::new(&expression).is_err());
        }
    }

    #[test]
    fn equal_expressions_are_equal_patterns() {
        assert_eq!(custom("a+"), custom("a+"));
        assert_ne!(custom("a+"), custom("a"));
        assert_eq!(format!("{:?}", Custom::new("a+").unwrap()), r#"Custom("a+")"#);
    }
}
