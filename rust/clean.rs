//! Cleaning rules: named pure functions from text to text.
//!
//! Cleaning belongs to the corpus, never to the tokenizer. A long document is cleaned in parts that begin with a run of
//! white space (see [`crate::pretokenize::last_cut`]), so a rule sees whole runs; the one thing that it must be told is
//! whether the text before it is missing because the document starts here.

use std::borrow::Cow;

/// A rule: the text, and whether it starts the document.
type Rule = fn(&str, bool) -> Cow<'_, str>;

/// Every rule, by name. All are idempotent.
pub const RULES: [(&str, Rule); 4] =
    [("newlines", newlines), ("whitespace", whitespace), ("lowercase", lowercase), ("drop-empty-lines", drop_empty_lines)];

/// The rules of those names, in that order.
///
/// # Errors
///
/// The first name that is no rule.
pub fn rules(names: &[String]) -> Result<Vec<Rule>, crate::Error> {
    let find = |name: &String| {
        RULES.iter().find(|(known, _)| known == name).map(|(_, rule)| *rule).ok_or_else(|| {
            let known: Vec<&str> = RULES.iter().map(|(known, _)| *known).collect();
            crate::Error::Invalid(format!("unknown cleaning rule {name:?}; the rules are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// Applies the rules in order.
#[must_use]
pub fn clean<'a>(rules: &[Rule], text: &'a str, starts_document: bool) -> Cow<'a, str> {
    let mut result = Cow::Borrowed(text);
    for rule in rules {
        if let Cow::Owned(changed) = rule(&result, starts_document) {
            result = Cow::Owned(changed);
        }
    }
    result
}

/// Line ends `\r\n` and `\r` become `\n`.
fn newlines(text: &str, _: bool) -> Cow<'_, str> {
    if !text.contains('\r') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n"))
}

/// Runs of white space within a line become one space; none is left at a line's end.
fn whitespace(text: &str, _: bool) -> Cow<'_, str> {
    let mut result = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        let trimmed = body.trim_end();
        let mut in_run = false;
        for c in trimmed.chars() {
            if !c.is_whitespace() {
                result.push(c);
            } else if !in_run {
                result.push(' ');
            }
            in_run = c.is_whitespace();
        }
        result.push_str(end);
    }
    if result == text { Cow::Borrowed(text) } else { Cow::Owned(result) }
}

/// Unicode lower case.
fn lowercase(text: &str, _: bool) -> Cow<'_, str> {
    let result = text.to_lowercase();
    if result == text { Cow::Borrowed(text) } else { Cow::Owned(result) }
}

/// Lines that hold nothing but white space are removed.
fn drop_empty_lines(text: &str, starts_document: bool) -> Cow<'_, str> {
    let mut result = String::with_capacity(text.len());
    for (i, line) in text.split_inclusive('\n').enumerate() {
        // What comes first in a later part is the end of a line that began before it.
        if (i == 0 && !starts_document) || !line.trim().is_empty() {
            result.push_str(line);
        }
    }
    if result.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretokenize::Pattern;
    use proptest::prelude::*;

    #[test]
    fn rules_do_what_their_rows_say() {
        for (name, text, expected) in [
            ("newlines", "a\r\nb\rc\n", "a\nb\nc\n"),
            ("newlines", "\r\r\n\n", "\n\n\n"),
            ("whitespace", "a  b\t c\u{a0}\u{3000}d  \n  e ", "a b c d\n e"),
            ("whitespace", "a \r\nb", "a\nb"),
            ("lowercase", "ÀB ΣΑΣ İ", "àb σας i\u{307}"),
            ("drop-empty-lines", "\n \na\n\n \t\n  b\n\n", "a\n  b\n"),
            ("drop-empty-lines", "a\n  ", "a\n"),
        ] {
            let rules = rules(&[name.to_string()]).unwrap();
            assert_eq!(clean(&rules, text, true), expected, "{name} of {text:?}");
        }
    }

    #[test]
    fn an_unknown_rule_is_refused() {
        let error = rules(&["newline".to_string()]).unwrap_err().to_string();
        assert_eq!(error, "unknown cleaning rule \"newline\"; the rules are newlines, whitespace, lowercase, drop-empty-lines");
    }

    fn lines() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec!["a", "Ω", "Σ", ".", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", "\u{a0}", "\u{2028}", "İ"]);
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_rule_is_idempotent(text in lines()) {
            for (name, rule) in RULES {
                let once = rule(&text, true).into_owned();
                prop_assert_eq!(rule(&once, true), once.as_str(), "{}", name);
            }
        }

        #[test]
        fn a_document_cleaned_in_parts_is_the_document_cleaned(text in lines(), limit in 0usize..60) {
            if let Some(at) = Pattern::Gpt2.last_cut(text.as_bytes(), limit) {
                for (name, rule) in RULES {
                    let parts = rule(&text[..at], true).into_owned() + &rule(&text[at..], false);
                    prop_assert_eq!(rule(&text, true), parts, "{}", name);
                }
            }
        }
    }
}
