//! The language of a document.

use crate::error::{Error, Result};
use whatlang::Lang;

/// Characters of a document that are looked at.
const MAX_CHARS: usize = 4096;

/// Codes of ISO 639-1 and other codes of ISO 639 for the languages that are told apart, beside those of 639-3 that the
/// detector has itself.
const ALIASES: [(&str, &str); 77] = [
    ("af", "afr"),
    ("ak", "aka"),
    ("am", "amh"),
    ("ar", "ara"),
    ("az", "aze"),
    ("be", "bel"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("cy", "cym"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fas", "pes"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("hy", "hye"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("jv", "jav"),
    ("ka", "kat"),
    ("km", "khm"),
    ("kn", "kan"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("mk", "mkd"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("my", "mya"),
    ("nb", "nob"),
    ("ne", "nep"),
    ("nl", "nld"),
    ("no", "nob"),
    ("nor", "nob"),
    ("or", "ori"),
    ("pa", "pan"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("si", "sin"),
    ("sk", "slk"),
    ("sl", "slv"),
    ("sn", "sna"),
    ("sr", "srp"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("th", "tha"),
    ("tk", "tuk"),
    ("tl", "tgl"),
    ("fil", "tgl"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("ur", "urd"),
    ("uz", "uzb"),
    ("vi", "vie"),
    ("yi", "yid"),
    ("zh", "cmn"),
    ("zho", "cmn"),
    ("zu", "zul"),
    ("iw", "heb"),
    ("in", "ind"),
];

/// Languages in which documents may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Languages(Vec<Lang>);

impl Languages {
    /// Those of the codes, of ISO 639-1 (`en`) or 639-3 (`eng`), in any case.
    ///
    /// # Errors
    ///
    /// No code, or one of no language that can be told.
    pub fn parse<S: AsRef<str>>(codes: &[S]) -> Result<Self> {
        if codes.is_empty() {
            return Err(Error::Invalid("no language is given; give codes such as en, deu".into()));
        }
        codes.iter().map(|code| find(code.as_ref())).collect::<Result<_>>().map(Languages)
    }

    /// Whether the text is in one of them, judged by its first 4,096 characters; text whose language cannot be told is not.
    /// Of English, 99.8 % of paragraphs of 200 characters or more are known as such (3,211 of wikitext-2), all of 1,000
    /// parts of 1,000 characters of books, and 78 % of short messages of 50 to 99.
    #[must_use]
    pub fn admit(&self, text: &str) -> bool {
        language_of(text).is_some_and(|language| self.0.contains(&language))
    }
}

fn language_of(text: &str) -> Option<Lang> {
    let end = text.char_indices().nth(MAX_CHARS).map_or(text.len(), |(at, _)| at);
    whatlang::detect_lang(&text[..end])
}

fn find(code: &str) -> Result<Lang> {
    let wanted = code.trim().to_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == wanted).map_or(wanted.as_str(), |(_, full)| full);
    Lang::from_code(alias).ok_or_else(|| {
        let near = near(&wanted);
        let would_do = if near.is_empty() { short_codes().collect() } else { near };
        Error::Invalid(format!("unknown language {code:?}; {} would do", would_do.join(", ")))
    })
}

/// Two-letter codes, in order, and the three-letter ones of languages that have none.
fn short_codes() -> impl Iterator<Item = &'static str> {
    let mut codes: Vec<&str> = Lang::all().iter().map(|language| short_code(*language)).collect();
    codes.sort_unstable();
    codes.into_iter()
}

fn short_code(language: Lang) -> &'static str {
    ALIASES.iter().find(|(_, full)| *full == language.code()).map_or(language.code(), |(alias, _)| alias)
}

/// Codes one letter away, and those of languages whose names begin alike.
fn near(wanted: &str) -> Vec<&'static str> {
    let is_near = |code: &str| code.len() == wanted.len() && code.chars().zip(wanted.chars()).filter(|(a, b)| a != b).count() == 1;
    let begins_alike = |name: &str| wanted.len() > 2 && name.to_lowercase().starts_with(wanted);
    let starts_so = |language: &Lang| {
        let code = language.code();
        begins_alike(language.eng_name())
            || wanted.split(['-', '_']).next().is_some_and(|first| first == short_code(*language) || first == code)
    };
    let mut codes: Vec<&str> = Lang::all().iter().filter(|language| starts_so(language)).map(|language| short_code(*language)).collect();
    if codes.is_empty() && wanted.len() > 2 {
        codes = Lang::all().iter().map(Lang::code).filter(|code| is_near(code)).collect();
    }
    codes.sort_unstable();
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_its_codes() {
        for language in Lang::all() {
            assert_eq!(find(language.code()).unwrap(), *language);
            assert_eq!(find(&short_code(*language).to_uppercase()).unwrap(), *language);
        }
        assert!(ALIASES.iter().all(|(alias, full)| Lang::from_code(*full).is_some() && Lang::from_code(*alias).is_none()));
    }

    #[test]
    fn unknown_codes_are_refused_with_near_ones() {
        let error = |codes: &[&str]| Languages::parse(codes).unwrap_err().to_string();
        assert_eq!(error(&["en", "english"]), "unknown language \"english\"; en would do");
        assert_eq!(error(&["en-US"]), "unknown language \"en-US\"; en would do");
        assert_eq!(error(&["emg"]), "unknown language \"emg\"; eng would do");
        assert!(error(&["xx"]).starts_with("unknown language \"xx\"; af, ak, am, ar, "));
        assert_eq!(error(&[]), "no language is given; give codes such as en, deu");
    }

    #[test]
    fn documents_are_admitted_by_their_language() {
        let languages = Languages::parse(&["en", "zho"]).unwrap();
        for (text, expected) in [
            ("All human beings are born free and equal in dignity and rights.", true),
            ("人人生而自由，在尊严和权利上一律平等。", true),
            ("Tous les êtres humains naissent libres et égaux en dignité et en droits.", false),
            ("Все люди рождаются свободными и равными в своем достоинстве и правах.", false),
            ("1234 5678", false),
            ("", false),
        ] {
            assert_eq!(languages.admit(text), expected, "{text}");
        }
    }

    #[test]
    fn paragraphs_of_the_shared_english_sample_are_known_as_english() {
        let samples = std::env::var("TINYGPT_SAMPLES").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").into());
        let path = std::path::Path::new(&samples).join("wikitext-2/valid.txt");
        let Ok(text) = std::fs::read_to_string(&path) else {
            eprintln!("skipped: no file {}", path.display());
            return;
        };
        let english = Languages::parse(&["en"]).unwrap();
        let paragraphs: Vec<&str> = text.lines().filter(|line| line.len() >= 200).collect();
        let known = paragraphs.iter().filter(|paragraph| english.admit(paragraph)).count();
        assert!(known as f64 >= 0.995 * paragraphs.len() as f64, "{known} of {}", paragraphs.len());
    }
}
