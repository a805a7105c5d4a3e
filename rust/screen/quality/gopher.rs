//! Gopher's rules on quality.

use super::words::Words;
use memchr::{memchr_iter, memmem};

/// Names, in order.
pub const RULES: [&str; 10] = [
    "quality:few-words",
    "quality:many-words",
    "quality:short-words",
    "quality:long-words",
    "quality:hashes",
    "quality:ellipses",
    "quality:bullet-lines",
    "quality:ellipsis-lines",
    "quality:alphabetic-words",
    "quality:stop-words",
];

/// The first rule that a text with these words fails.
pub fn judge(text: &str, words: &Words) -> Option<&'static str> {
    let n_words = words.hashes.len() as f64;
    let mean_chars = words.named_chars as f64 / words.n_named as f64;
    let count = |sign: &str| memmem::find_iter(text.as_bytes(), sign).count();
    let hashes = memchr_iter(b'#', text.as_bytes()).count();
    let ellipses = || count("...") + count("…");
    let [few, many, short, long, many_hashes, many_ellipses, bullets, open_lines, alphabetic, stop_words] = RULES;
    if words.n_named < 50 {
        return Some(few);
    }
    if words.n_named > 100_000 {
        return Some(many);
    }
    if mean_chars < 3.0 {
        return Some(short);
    }
    if mean_chars > 10.0 {
        return Some(long);
    }
    if hashes as f64 / n_words > 0.1 {
        return Some(many_hashes);
    }
    if ellipses() as f64 / n_words > 0.1 {
        return Some(many_ellipses);
    }
    let lines = Lines::of(text);
    if lines.bullets as f64 / lines.all as f64 > 0.9 {
        return Some(bullets);
    }
    if lines.ellipses as f64 / lines.all as f64 > 0.3 {
        return Some(open_lines);
    }
    if (words.n_alphabetic as f64) / n_words < 0.8 {
        return Some(alphabetic);
    }
    (words.n_stop_words < 2).then_some(stop_words)
}

#[derive(Default)]
struct Lines {
    all: u64,
    /// How many begin with a bullet or a hyphen.
    bullets: u64,
    /// How many end with an ellipsis.
    ellipses: u64,
}

impl Lines {
    fn of(text: &str) -> Self {
        let mut lines = Lines::default();
        for line in text.lines() {
            let (start, end) = (line.trim_start(), line.trim_end());
            lines.all += 1;
            lines.bullets += u64::from(start.starts_with(['•', '-']));
            lines.ellipses += u64::from(end.ends_with("...") || end.ends_with('…'));
        }
        lines
    }
}
