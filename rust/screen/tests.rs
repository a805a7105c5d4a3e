use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ENGLISH: &str = "The man went to the house with his dog and they were happy to have the evening";
const FRENCH: &str = "Tous les êtres humains naissent libres et égaux en dignité et en droits";

fn screen(filters: &Filters, documents: &[&str]) -> Verdicts {
    let folder = tempfile::tempdir().unwrap();
    let mut screening = Screening::new(filters, folder.path()).unwrap();
    let mut judge = Judge::new(filters);
    for text in documents {
        screening.push(&judge.judge(text, true, text.contains('\u{fffd}')), text.len() as u64).unwrap();
    }
    let verdicts = screening.finish().unwrap();
    assert_eq!(verdicts.documents(), documents.len() as u64);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    verdicts
}

fn removed(verdicts: &Verdicts) -> Vec<u64> {
    (0..verdicts.documents()).filter(|i| verdicts.is_removed(*i)).collect()
}

#[test]
fn a_document_counts_for_the_first_rule_that_removes_it() {
    let filters = Filters {
        invalid: true,
        min_chars: Some(20),
        max_chars: Some(100),
        language: Some(Languages::parse(&["en"]).unwrap()),
        quality: None,
        exact: true,
        near: Some(NearOptions::default()),
    };
    let long = ENGLISH.repeat(2);
    let near = format!("{},", ENGLISH.to_uppercase());
    let documents =
        ["\u{fffd}", "short", &long, FRENCH, ENGLISH, "short", ENGLISH, &near, "She sells sea shells by the sea shore, and he buys them"];
    let verdicts = screen(&filters, &documents);
    assert_eq!(removed(&verdicts), [0, 1, 2, 3, 5, 6, 7]);
    let size = |text: &str| text.len() as u64;
    let expected = [
        ("invalid", 1, 3),
        ("min-chars", 2, 10),
        ("max-chars", 1, size(&long)),
        ("language", 1, size(FRENCH)),
        ("exact-duplicate", 1, size(ENGLISH)),
        ("near-duplicate", 1, size(&near)),
    ];
    assert_eq!(verdicts.counts(), expected.map(|(rule, documents, bytes)| Removed { rule, documents, bytes }));
}

#[test]
fn rules_in_force_are_named_in_order() {
    let filters = Filters { exact: true, quality: Some(Preset::C4), max_chars: Some(1), ..Filters::default() };
    assert_eq!(filters.rules(), ["max-chars", "quality:lorem-ipsum", "quality:curly-bracket", "quality:few-sentences", "exact-duplicate"]);
    assert!(Filters::default().is_empty() && Filters::default().rules().is_empty() && !filters.is_empty());
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let lengths = Filters { min_chars: Some(3), max_chars: Some(2), ..Filters::default() };
    assert_eq!(lengths.check().unwrap_err().to_string(), "min_chars must be at most max_chars, got 3 and 2");
    let near = Filters { near: Some(NearOptions { words: 0, ..NearOptions::default() }), ..Filters::default() };
    assert!(Screening::new(&near, Path::new(".")).is_err());
}

#[test]
fn a_long_document_is_judged_by_its_beginning_and_all_of_it() {
    let filters = Filters { exact: true, max_chars: Some(600_000), near: Some(NearOptions::default()), ..Filters::default() };
    let word = |i: usize| format!("word{} ", i * i % 77_777);
    let long: String = (0..60_000).map(word).collect();
    assert!(long.len() > 2 * HEAD_BYTES);
    let mut judge = Judge::new(&filters);
    let mut by_parts = judge.judge(&long[..HEAD_BYTES + 5], false, false);
    let mut hash = DocumentHash::default();
    for part in [&long[..HEAD_BYTES + 5], &long[HEAD_BYTES + 5..]] {
        hash.update(part);
    }
    by_parts.complete(&hash, false);
    assert_eq!(by_parts, judge.judge(&long, true, false));
}

#[test]
fn near_duplicates_are_joined_through_those_between() {
    let text = |from: usize| (from..from + 300).map(|i| format!("w{i}")).collect::<Vec<_>>().join(" ");
    let texts: Vec<String> = (0..10).map(|i| text(8 * i)).chain([text(5000)]).collect();
    let documents: Vec<&str> = texts.iter().map(String::as_str).collect();
    let verdicts = screen(&Filters { near: Some(NearOptions::default()), ..Filters::default() }, &documents);
    assert_eq!(removed(&verdicts), (1..10).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_removed_is_what_a_plain_search_removes(texts in prop::collection::vec("[ab]{0,3}( [ab]{1,2}){0,5}", 0..60), min in 0u64..6, exact: bool, near: bool) {
        let near = near.then(NearOptions::default);
        let filters = Filters { min_chars: Some(min), exact, near, ..Filters::default() };
        let documents: Vec<&str> = texts.iter().map(String::as_str).collect();
        let verdicts = screen(&filters, &documents);

        let mut labels: Vec<usize> = (0..texts.len()).collect();
        let mut first = BTreeMap::new();
        let mut judge = Judge::new(&filters);
        let bands: Vec<Vec<u64>> = texts.iter().map(|text| judge.judge(text, true, false).bands).collect();
        let kept: Vec<usize> = (0..texts.len()).filter(|i| texts[*i].len() as u64 >= min).collect();
        for &i in &kept {
            let same = *first.entry(&texts[i]).or_insert(i);
            labels[i] = if exact { same } else { i };
        }
        for &i in kept.iter().filter(|_| near.is_some()) {
            for &j in kept.iter().filter(|j| **j < i) {
                if bands[i].iter().zip(&bands[j]).any(|(a, b)| a == b) {
                    let (a, b) = (labels[i], labels[j]);
                    for label in labels.iter_mut().filter(|label| **label == a || **label == b) {
                        *label = a.min(b);
                    }
                }
            }
        }
        let expected: Vec<u64> = (0..texts.len()).filter(|i| !kept.contains(i) || labels[*i] != *i).map(|i| i as u64).collect();
        prop_assert_eq!(removed(&verdicts), expected);
        let counts = verdicts.counts();
        prop_assert_eq!(counts.iter().map(|count| count.documents).sum::<u64>(), removed(&verdicts).len() as u64);
        let bytes: usize = removed(&verdicts).iter().map(|i| texts[*i as usize].len()).sum();
        prop_assert_eq!(counts.iter().map(|count| count.bytes).sum::<u64>(), bytes as u64);
    }

    #[test]
    fn the_hash_of_parts_is_that_of_the_whole(parts in prop::collection::vec("[a-é中]{0,400}", 0..5)) {
        let mut hash = DocumentHash::default();
        for part in &parts {
            hash.update(part);
        }
        let whole = parts.concat();
        let judgement = Judge::new(&Filters { exact: true, ..Filters::default() }).judge(&whole, true, false);
        prop_assert_eq!((hash.digest(), hash.chars()), (judgement.hash, judgement.chars));
    }
}
