//! Cleaning rules: named pure functions from text to text.
//!
//! Cleaning belongs to the corpus, never to the tokenizer. A long document is cleaned in parts that begin with a run of
//! white space (see [`crate::pretokenize::last_cut`]), so a rule sees whole runs; the one thing that it must be told is
//! whether the text before it is missing because the document starts here. Each rule then makes of the parts what it makes
//! of the whole. Two rules in a row may not, where the first makes white space of what stands before a cut or takes it away
//! (`strip-control`, `html-entities`), and the second wants whole runs.
//!
//! The rule [`GUTENBERG`] is none of these functions: it must have seen the beginning of a document to judge its end, so
//! it works on the raw document before it is cut ([`GutenbergBody`]).

mod characters;
mod entities;
mod gutenberg;
mod mask;
mod scan;
mod spaces;

pub use gutenberg::GutenbergBody;

use std::borrow::Cow;

/// A rule: the text, and whether it starts the document.
pub type Rule = fn(&str, bool) -> Cow<'_, str>;

/// Every rule, by name. All but `html-entities` are idempotent.
pub const RULES: [(&str, Rule); 9] = [
    ("newlines", spaces::newlines),
    ("whitespace", spaces::whitespace),
    ("lowercase", characters::lowercase),
    ("drop-empty-lines", spaces::drop_empty_lines),
    ("strip-control", characters::strip_control),
    ("nfc", characters::nfc),
    ("html-entities", entities::html_entities),
    ("mask-urls", mask::mask_urls),
    ("mask-emails", mask::mask_emails),
];

/// Name of the rule that leaves out what Project Gutenberg puts around its books.
pub const GUTENBERG: &str = "gutenberg";

/// Whether the first of the names is [`GUTENBERG`], and the rest of them.
///
/// # Errors
///
/// It is named, but not first.
pub fn split_gutenberg(names: &[String]) -> crate::Result<(bool, &[String])> {
    let rest = match names {
        [first, rest @ ..] if first == GUTENBERG => rest,
        _ => names,
    };
    match rest.iter().position(|name| name == GUTENBERG) {
        None => Ok((rest.len() < names.len(), rest)),
        Some(_) if rest.len() < names.len() => {
            Err(crate::Error::Invalid(format!("the cleaning rule {GUTENBERG} is named twice; once would do")))
        }
        Some(at) => {
            let message = format!("the cleaning rule {GUTENBERG} works on unchanged text, found it after {}; name it first", rest[at - 1]);
            Err(crate::Error::Invalid(message))
        }
    }
}

/// The rules of those names, in that order.
///
/// # Errors
///
/// The first name that is no rule.
pub fn rules(names: &[String]) -> crate::Result<Vec<Rule>> {
    let find = |name: &String| {
        RULES.iter().find(|(known, _)| known == name).map(|(_, rule)| *rule).ok_or_else(|| {
            let known: Vec<&str> = RULES.iter().map(|(known, _)| *known).chain([GUTENBERG]).collect();
            let hint = if name.contains(',') { ", parted by spaces," } else { "" };
            crate::Error::Invalid(format!("unknown cleaning rule {name:?}; the rules{hint} are {}", known.join(", ")))
        })
    };
    names.iter().map(find).collect()
}

/// Applies the rules in order.
#[must_use]
pub fn clean<'a>(rules: &[Rule], text: &'a str, starts_document: bool) -> Cow<'a, str> {
    apply(rules, text, starts_document, |_, _| {})
}

/// Applies the rules in order and adds to `removed`, of which there is one for each rule, the bytes that each took away;
/// a rule that made the text longer takes away fewer than none.
#[must_use]
pub fn clean_counted<'a>(rules: &[Rule], text: &'a str, starts_document: bool, removed: &mut [i64]) -> Cow<'a, str> {
    apply(rules, text, starts_document, |rule, bytes| removed[rule] += bytes)
}

fn apply<'a>(rules: &[Rule], text: &'a str, starts_document: bool, mut count: impl FnMut(usize, i64)) -> Cow<'a, str> {
    let mut result = Cow::Borrowed(text);
    for (i, rule) in rules.iter().enumerate() {
        if let Cow::Owned(changed) = rule(&result, starts_document) {
            count(i, result.len().cast_signed() as i64 - changed.len().cast_signed() as i64);
            result = Cow::Owned(changed);
        }
    }
    result
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
            ("strip-control", "\u{feff}a\0b\u{1b}[0m\t\u{85}\r\n\u{200d}\u{7f}", "ab[0m\t\r\n\u{200d}"),
            ("nfc", "e\u{301} \u{212b} か\u{3099} \u{1100}\u{1161}", "é Å が 가"),
            ("html-entities", "&lt;a&gt; &amp;amp;", "<a> &amp;"),
            ("mask-urls", "see http://a.b/c.", "see <url>."),
            ("mask-emails", "to a.b@c.de.", "to <email>."),
        ] {
            let rules = rules(&[name.to_string()]).unwrap();
            assert_eq!(clean(&rules, text, true), expected, "{name} of {text:?}");
        }
    }

    #[test]
    fn rules_parted_by_commas_are_refused_with_a_hint() {
        let error = rules(&["nfc,newlines".to_string()]).unwrap_err().to_string();
        assert!(error.starts_with("unknown cleaning rule \"nfc,newlines\"; the rules, parted by spaces, are newlines, "), "{error}");
    }

    #[test]
    fn an_unknown_rule_is_refused() {
        let error = rules(&["newline".to_string()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown cleaning rule \"newline\"; the rules are newlines, whitespace, lowercase, drop-empty-lines, \
                        strip-control, nfc, html-entities, mask-urls, mask-emails, gutenberg"
        );
    }

    #[test]
    fn gutenberg_comes_first_or_not_at_all() {
        let split = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            split_gutenberg(&names).map(|(found, rest)| (found, rest.len())).map_err(|e| e.to_string())
        };
        assert_eq!(split(&["newlines"]), Ok((false, 1)));
        assert_eq!(split(&["gutenberg", "newlines"]), Ok((true, 1)));
        let late = "the cleaning rule gutenberg works on unchanged text, found it after newlines; name it first";
        assert_eq!(split(&["newlines", "gutenberg"]), Err(late.into()));
        assert_eq!(split(&["gutenberg", "gutenberg"]), Err("the cleaning rule gutenberg is named twice; once would do".into()));
    }

    #[test]
    fn each_rule_counts_the_bytes_it_removed() {
        let rules = rules(&["newlines", "mask-urls", "lowercase"].map(String::from)).unwrap();
        let mut removed = [1, 0, 0];
        assert_eq!(clean_counted(&rules, "A\r\nwww.a.b http://c.d\r\n", true, &mut removed), "a\n<url> <url>\n");
        assert_eq!(removed, [3, 7, 0]);
    }

    fn lines() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "a", "Ω", "Σ", ".", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", "\u{a0}", "\u{2028}", "İ", "\0", "\u{85}", "\u{feff}", "e",
            "\u{301}", "\u{323}", "&amp;", "&lt", "&#32", ";", "http://", "www.", "(", ")", "/", "@", "b.c", "-", "<", "1",
        ]);
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn every_rule_is_idempotent(text in lines()) {
            // Of what was written as `&amp;lt;` one decoding leaves `&lt;`, which is text; a second would lose it.
            for (name, rule) in RULES.into_iter().filter(|(name, _)| *name != "html-entities") {
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
