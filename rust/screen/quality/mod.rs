//! Rules of thumb for text from the web, as published; each has a name.
//!
//! The definitions are those of datatrove, which are those of the papers where these say enough. Two differ: words are
//! found without a dictionary ([`words`]), and a document longer than 256 KiB is judged by its beginning, so one of more than
//! 100,000 words is seldom seen to have so many. Line ends are taken to be `\n` (the cleaning rule `newlines` makes them).

mod c4;
mod gopher;
mod repetition;
mod table;
mod words;

use repetition::Repetition;
use words::Words;

/// A set of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Quality and repetition, for languages with spaces between words; one rule, `stop-words`, is for English alone.
    ///
    /// Source: Rae et al. 2021, table A1 and section A.1.1 (arXiv:2112.11446).
    Gopher,
    /// What C4 does to whole documents. Lines that it would take out of a document are left in it, and only not counted.
    ///
    /// Source: Raffel et al. 2020, section 2.2 (arXiv:1910.10683).
    C4,
}

impl Preset {
    /// Every preset, by name.
    pub const NAMES: [(&str, Preset); 2] = [("gopher", Preset::Gopher), ("c4", Preset::C4)];

    /// The preset of that name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn named(name: &str) -> crate::Result<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, preset)| *preset).ok_or_else(|| {
            let known: Vec<&str> = Self::NAMES.iter().map(|(known, _)| *known).collect();
            crate::Error::Invalid(format!("unknown quality preset {name:?}; the presets are {}", known.join(", ")))
        })
    }

    /// Names of its rules, in the order in which they apply.
    #[must_use]
    pub fn rules(self) -> &'static [&'static str] {
        match self {
            Preset::Gopher => &GOPHER,
            Preset::C4 => &c4::RULES,
        }
    }
}

const GOPHER: [&str; gopher::RULES.len() + repetition::RULES.len()] = {
    let mut rules = [""; gopher::RULES.len() + repetition::RULES.len()];
    let mut i = 0;
    while i < rules.len() {
        rules[i] = if i < gopher::RULES.len() { gopher::RULES[i] } else { repetition::RULES[i - gopher::RULES.len()] };
        i += 1;
    }
    rules
};

/// The first rule of the preset that the text fails.
#[must_use]
pub fn judge(text: &str, preset: Preset) -> Option<&'static str> {
    QualityJudge::default().judge(text, preset)
}

/// What judging needs of memory, kept from one document to the next.
#[derive(Clone, Default)]
pub struct QualityJudge {
    words: Words,
    repetition: Repetition,
}

impl QualityJudge {
    /// See [`judge`].
    pub fn judge(&mut self, text: &str, preset: Preset) -> Option<&'static str> {
        match preset {
            Preset::C4 => c4::judge(text),
            Preset::Gopher => {
                self.words.read(text);
                gopher::judge(text, &self.words).or_else(|| self.repetition.judge(text, &self.words))
            }
        }
    }
}

#[cfg(test)]
mod tests;
