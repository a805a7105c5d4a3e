//! C4's rules on documents.

use std::borrow::Cow;

/// Names, in order.
pub const RULES: [&str; 3] = ["quality:lorem-ipsum", "quality:curly-bracket", "quality:few-sentences"];

const MAX_WORD_CHARS: usize = 1000;
const MIN_LINE_WORDS: usize = 3;
const MIN_SENTENCES: usize = 5;
const POLICIES: [&str; 6] = ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"];

/// The first rule that a text fails. Only lines that C4 keeps are looked at: of three words or more, ended by `.`, `?`, `!`
/// or a quotation mark but not by an ellipsis, with no word of more than 1,000 characters and nothing about JavaScript
/// or cookies.
pub fn judge(text: &str) -> Option<&'static str> {
    let [lorem_ipsum, curly_bracket, few_sentences] = RULES;
    let mut sentences = 0;
    for line in text.lines() {
        let original = line.trim();
        let line = without_citations(original);
        let is_ended = line.ends_with(['.', '?', '!', '"', '\'']) && !line.ends_with("...");
        if !is_ended || original.split_whitespace().nth(MIN_LINE_WORDS - 1).is_none() || has_long_word(original) {
            continue;
        }
        let lower = line.to_lowercase();
        if lower.contains("lorem ipsum") {
            return Some(lorem_ipsum);
        }
        if lower.contains("javascript") {
            continue;
        }
        if line.contains('{') {
            return Some(curly_bracket);
        }
        if !POLICIES.iter().any(|policy| lower.contains(policy)) {
            sentences += count_sentences(&line);
        }
    }
    (sentences < MIN_SENTENCES).then_some(few_sentences)
}

fn has_long_word(line: &str) -> bool {
    line.len() > MAX_WORD_CHARS && line.split_whitespace().any(|word| word.len() > MAX_WORD_CHARS && word.chars().count() > MAX_WORD_CHARS)
}

/// Without `[1]`, `[]`, `[edit]` and `[citation needed]`.
fn without_citations(line: &str) -> Cow<'_, str> {
    if !line.contains('[') {
        return Cow::Borrowed(line);
    }
    let mut result = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('[') {
        let after = &rest[at + 1..];
        let end = after.find(']').filter(|end| {
            let inner = &after[..*end];
            inner == "edit" || inner == "citation needed" || inner.bytes().all(|byte| byte.is_ascii_digit())
        });
        let kept = at + usize::from(end.is_none());
        result.push_str(&rest[..kept]);
        rest = end.map_or(after, |end| &after[end + 1..]);
    }
    result.push_str(rest);
    Cow::Owned(result)
}

/// Sentences of a line that has at least one: a new one begins after `.`, `?` or `!`, any closing marks and white space,
/// unless with a small letter, and not after an initial.
fn count_sentences(line: &str) -> usize {
    let mut words = line.split_whitespace().peekable();
    let mut sentences = 1;
    while let Some(word) = words.next() {
        let ended = word.trim_end_matches(['"', '\'', ')', ']', '”', '’', '»']);
        let is_end = ended.ends_with(['?', '!']) || ended.strip_suffix('.').is_some_and(|word| !is_initial(word));
        let begins =
            words.peek().is_some_and(|next| !next.trim_start_matches(['"', '\'', '(', '[', '“', '‘', '«']).starts_with(char::is_lowercase));
        sentences += usize::from(is_end && begins);
    }
    sentences
}

fn is_initial(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(char::is_uppercase) && letters.next().is_none()
}
