//! The words of a text, for rules that count them.

/// Words and punctuation in order, much as spaCy finds them for European languages but without its dictionary.
///
/// A word is a run of letters, digits and `_`, with other signs between them (`a.b@c`, `1,000`) but dashes and `/:<=>~`, or a
/// comma before a letter, and with the dot of an initial (`A.`, `U.S.`). An apostrophe
/// begins a word with the letters after it (`it`, `'s`). What is left are runs of one sign.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// A hash of each.
    pub hashes: Vec<u64>,
    /// Characters before each, and in all at the end.
    pub chars: Vec<u32>,
    /// How many are more than punctuation.
    pub n_named: u64,
    /// Characters of those.
    pub named_chars: u64,
    /// How many have a letter.
    pub n_alphabetic: u64,
    /// How many are common words of English.
    pub n_stop_words: u64,
}

const STOP_WORDS: [&str; 8] = ["the", "be", "to", "of", "and", "that", "have", "with"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Digit,
    Apostrophe,
    /// Ends a word wherever it stands.
    Divider,
    Sign,
}

impl Class {
    fn is_named(self) -> bool {
        matches!(self, Class::Letter | Class::Digit)
    }
}

/// The word being read.
struct Open {
    start: usize,
    chars: u32,
    hash: u64,
    /// The sign of which it is a run; none in a word.
    sign: Option<char>,
    is_alphabetic: bool,
    /// Characters since it began or had a dot.
    since_dot: u32,
}

impl Open {
    fn new(start: usize, sign: Option<char>) -> Self {
        Open { start, chars: 0, hash: 0, sign, is_alphabetic: false, since_dot: 0 }
    }

    /// Whether a character that comes before one of class `next` belongs to it.
    fn takes(&self, c: char, class: Class, next: Option<Class>) -> bool {
        if self.sign.is_some() {
            return self.sign == Some(c);
        }
        let is_between = next.is_some_and(Class::is_named);
        match class {
            Class::Letter | Class::Digit => true,
            Class::Sign if c == ',' => next == Some(Class::Digit),
            Class::Sign if c == '.' && self.since_dot == 1 => self.is_alphabetic || is_between,
            Class::Sign => is_between,
            Class::Space | Class::Apostrophe | Class::Divider => false,
        }
    }

    fn push(&mut self, c: char, class: Class) {
        self.chars += 1;
        self.hash = (self.hash.rotate_left(5) ^ u64::from(u32::from(c))).wrapping_mul(0x9fb2_1c65_1e98_df25);
        self.is_alphabetic |= class == Class::Letter;
        self.since_dot = if c == '.' { 0 } else { self.since_dot + 1 };
    }
}

impl Words {
    /// Finds those of another text.
    pub fn read(&mut self, text: &str) {
        self.clear();
        let mut open: Option<Open> = None;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let class = class(c);
            if class == Class::Space {
                self.end(text, at, open.take());
                continue;
            }
            // Of letters and digits nobody has to know what follows.
            let next = if class.is_named() { None } else { chars.peek().map(|(_, next)| self::class(*next)) };
            if !open.as_ref().is_some_and(|open| open.takes(c, class, next)) {
                let begins_word = class == Class::Apostrophe
                    && open.as_ref().is_some_and(|open| open.sign.is_none())
                    && next.is_some_and(Class::is_named);
                self.end(text, at, open.take());
                open = Some(Open::new(at, (!class.is_named() && !begins_word).then_some(c)));
            }
            if let Some(open) = &mut open {
                open.push(c, class);
            }
        }
        self.end(text, text.len(), open);
    }

    fn clear(&mut self) {
        self.hashes.clear();
        self.chars.clear();
        self.chars.push(0);
        (self.n_named, self.named_chars, self.n_alphabetic, self.n_stop_words) = (0, 0, 0, 0);
    }

    fn end(&mut self, text: &str, at: usize, word: Option<Open>) {
        let Some(word) = word else { return };
        self.hashes.push(word.hash);
        self.chars.push(self.chars[self.chars.len() - 1] + word.chars);
        if word.sign.is_none() {
            self.n_named += 1;
            self.named_chars += u64::from(word.chars);
        }
        self.n_alphabetic += u64::from(word.is_alphabetic);
        self.n_stop_words += u64::from((2..=4).contains(&word.chars) && STOP_WORDS.contains(&&text[word.start..at]));
    }
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' | '_' => Class::Digit,
        '\'' | '’' => Class::Apostrophe,
        '-' | '‐' | '–' | '—' | '…' | '~' | ':' | '<' | '=' | '>' | '/' => Class::Divider,
        _ if c.is_whitespace() => Class::Space,
        _ if c.is_alphabetic() => Class::Letter,
        _ if c.is_numeric() || is_mark(c) => Class::Digit,
        _ => Class::Sign,
    }
}

/// What is neither letter nor number in the blocks of scripts: marks, for the most part.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{64b}'..='\u{65f}' | '\u{900}'..='\u{1fff}' | '\u{200c}' | '\u{200d}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_a_reader_counts_them() {
        for (text, n_words, n_named, named_chars, n_alphabetic, n_stop_words) in [
            ("", 0, 0, 0, 0, 0),
            ("The cat, that cat.", 6, 4, 13, 4, 1),
            ("it's the dogs' don't", 7, 6, 16, 6, 1),
            ("(\"well-known\")... — 3.14 U.S. a@b.c", 12, 5, 22, 4, 0),
            ("50% $5 1,000", 5, 3, 8, 0, 0),
            ("to be, with THE", 5, 4, 11, 4, 3),
            ("A. B (c_d) f(x) a,b 2,3 a/b", 14, 9, 16, 8, 0),
            ("né l’été", 3, 3, 7, 3, 0),
        ] {
            let mut words = Words::default();
            words.read(text);
            let found = (words.hashes.len(), words.n_named, words.named_chars, words.n_alphabetic, words.n_stop_words);
            assert_eq!(found, (n_words, n_named, named_chars, n_alphabetic, n_stop_words), "{text:?}");
            assert_eq!(words.chars[n_words] as usize, text.chars().filter(|c| !c.is_whitespace()).count());
        }
    }
}
