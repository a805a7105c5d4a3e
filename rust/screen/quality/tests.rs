use super::*;

/// A word of five letters, another one for each number.
fn word(number: usize) -> String {
    (0..5).map(|i| char::from(b'a' + (number / 26usize.pow(i) % 26) as u8)).collect()
}

fn words(numbers: std::ops::Range<usize>) -> String {
    numbers.map(word).collect::<Vec<_>>().join(" ")
}

/// Two stop words, and others so that there are that many.
fn plain(n_words: usize) -> String {
    format!("the of {}", words(0..n_words - 2))
}

/// The text made that long with words that are not in it.
fn filled(mut text: String, chars: usize) -> String {
    for number in 50_000.. {
        if text.len() + 12 > chars {
            break;
        }
        text = text + " " + &word(number);
    }
    assert!(text.len() <= chars);
    text.clone() + &"x".repeat(chars - text.len())
}

/// Words of those lengths, the first two stop words.
fn of_lengths(lengths: &[usize]) -> String {
    let letter = |number: usize| char::from(b'a' + number as u8);
    let long = |(i, length): (usize, &usize)| format!("{}{}{}", letter(i % 26), letter(i / 26), "x".repeat(length - 2));
    format!("the and {}", lengths.iter().enumerate().map(long).collect::<Vec<_>>().join(" "))
}

/// Lines of eight words, changed by their number.
fn lines(n_lines: usize, between: &str, change: impl Fn(usize, String) -> String) -> String {
    let line = |i: usize| change(i, format!("{} {}", ["the", "of"][i % 2], words(10 * i..10 * i + 7)));
    (0..n_lines).map(line).collect::<Vec<_>>().join(between)
}

/// A sign after every ninth word, so many times.
fn with_signs(sign: &str, n_signs: usize) -> String {
    let signed = |i: usize| if i < n_signs { format!("{} {sign}", words(8 * i..8 * i + 8)) } else { word(8 * i) };
    format!("the of {} and with", (0..n_signs).map(signed).collect::<Vec<_>>().join(" "))
        + &format!(" {}", words(9000..9000 + 86 - 8 * n_signs))
}

/// One word between three paragraphs, twice, of a third of the others' characters and some more.
fn with_long_part(between: &str, more: usize) -> String {
    let [first, second] = [words(0..40), format!("the of {}", words(50..90))];
    let rest = first.len() + second.len() + 3 * between.len();
    let (first, long) = (first + &"x".repeat((3 - rest % 3) % 3), "y".repeat(rest.div_ceil(3) + more));
    [&first, &long, &second, &long].map(String::as_str).join(between)
}

/// `n` words in a row, ten times, in a text in which they take the fraction, or in one a character shorter.
fn with_grams(n: usize, counted_chars: usize, fraction: f64, fewer: usize) -> String {
    let row = words(100..100 + n);
    let text = (0..10).fold(String::from("the of"), |text, i| format!("{text} {row} {}", word(200 + i)));
    filled(text, (counted_chars as f64 / fraction).ceil() as usize - fewer)
}

#[test]
fn every_gopher_rule_fails_at_its_threshold() {
    let bullets = |n_bullets| lines(10, "\n", |i, line| if i < n_bullets { format!("• {line}") } else { line });
    let ellipses = |n_lines| lines(10, "\n", |i, line| if i < n_lines { line + "..." } else { line });
    let apart = |between: &str, n_again| {
        let other = |i: usize| format!("{} {}", ["the", "of"][i % 2], words(500 + 20 * i..515 + 20 * i));
        let parts =
            (0..10 - n_again).map(other).enumerate().flat_map(|(i, line)| if i <= n_again { vec!["end".into(), line] } else { vec![line] });
        parts.take(10).collect::<Vec<_>>().join(between)
    };
    let numbers = |n_numbers: usize| {
        format!("{} {}", plain(100 - n_numbers), (0..n_numbers).map(|i| (1000 + i).to_string()).collect::<Vec<_>>().join(" "))
    };
    let mut cases = vec![
        ("few-words", plain(49), plain(50)),
        ("many-words", plain(100_001), plain(100_000)),
        ("short-words", of_lengths(&[&[2], [3; 47].as_slice()].concat()), of_lengths(&[3; 48])),
        ("long-words", of_lengths(&[&[17, 18], [10; 46].as_slice()].concat()), of_lengths(&[&[17, 17], [10; 46].as_slice()].concat())),
        ("hashes", with_signs("#", 11), with_signs("#", 10)),
        ("ellipses", with_signs("...", 11), with_signs("...", 10)),
        ("bullet-lines", bullets(10), bullets(9)),
        ("ellipsis-lines", ellipses(4), ellipses(3)),
        ("alphabetic-words", numbers(21), numbers(20)),
        ("stop-words", format!("the {}", words(0..60)), plain(60)),
        ("duplicate-paragraphs", apart("\n\n", 4), apart("\n\n\n", 3)),
        ("duplicate-paragraph-characters", with_long_part("\n\n", 1), with_long_part("\n\n", 0)),
        ("duplicate-lines", apart("\n", 4), apart("\n", 3)),
        ("duplicate-line-characters", with_long_part("\n", 1), with_long_part("\n", 0)),
    ];
    let tops = [(2, 0.20, "top-2-gram"), (3, 0.18, "top-3-gram"), (4, 0.16, "top-4-gram")];
    cases.extend(
        tops.map(|(n, fraction, name)| (name, with_grams(n, 10 * (6 * n - 1), fraction, 1), with_grams(n, 10 * (6 * n - 1), fraction, 0))),
    );
    for (n, fraction) in [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)] {
        let name = RULE_NAMES[n - 5];
        cases.push((name, with_grams(n, 9 * 5 * n, fraction, 1), with_grams(n, 9 * 5 * n, fraction, 0)));
    }
    for (rule, failing, passing) in &cases {
        let rule = format!("quality:{rule}");
        assert_eq!(judge(failing, Preset::Gopher), Some(rule.as_str()), "{failing}");
        assert_eq!(judge(passing, Preset::Gopher), None, "{rule}: {passing}");
    }
    let tested: Vec<String> = cases.iter().map(|(rule, ..)| format!("quality:{rule}")).collect();
    assert_eq!(tested, Preset::Gopher.rules());
}

const RULE_NAMES: [&str; 6] =
    ["duplicate-5-grams", "duplicate-6-grams", "duplicate-7-grams", "duplicate-8-grams", "duplicate-9-grams", "duplicate-10-grams"];

#[test]
fn every_c4_rule_fails_at_its_threshold() {
    let sound = "One thing is here. Two of them are there! Is a third \"here?\" A fourth.\nThe fifth one [1].";
    let [lorem_ipsum, curly_bracket, few_sentences] = ["quality:lorem-ipsum", "quality:curly-bracket", "quality:few-sentences"].map(Some);
    for (text, expected) in [
        (sound.to_string(), None),
        (format!("{sound}\nA Lorem Ipsum dolor."), lorem_ipsum),
        (format!("{sound}\nA lorem ipsum dolor"), None),
        (format!("{sound}\nif (a) {{ b."), curly_bracket),
        (format!("{sound}\nif (a) {{ b"), None),
        (format!("{sound}\nif (a) {{ b ..."), None),
        (sound.replace(" A fourth.", ""), few_sentences),
        (sound.replace(" A fourth.", " a fourth."), few_sentences),
        (sound.replace(" A fourth.", " Here is A. Fourth."), None),
        (sound.replace("fifth", "JavaScript fifth"), few_sentences),
        (sound.replace("fifth", "Privacy Policy"), few_sentences),
        (sound.replace("fifth", &"x".repeat(1001)), few_sentences),
        (sound.replace("fifth", &"x".repeat(1000)), None),
        (sound.replace("fifth one [1]", "fifth"), few_sentences),
        (sound.replace("one [1].", "one.[1][edit][citation needed][]"), None),
        (sound.replace("one [1].", "one.[x]"), few_sentences),
        (String::new(), few_sentences),
    ] {
        assert_eq!(judge(&text, Preset::C4), expected, "{text}");
    }
}

#[test]
fn unknown_presets_are_refused() {
    assert_eq!(Preset::named("c4").unwrap(), Preset::C4);
    assert_eq!(Preset::named("web").unwrap_err().to_string(), "unknown quality preset \"web\"; the presets are gopher, c4");
}

#[test]
fn no_text_is_too_odd_to_judge() {
    let mut judge = QualityJudge::default();
    for text in ["", "\n", "\n\n", " ", "...", "…\n…", "a", "\u{300}", "'", "x'", "中文。中文。"] {
        for (_, preset) in Preset::NAMES {
            assert!(judge.judge(text, preset).is_some(), "{text:?}");
        }
    }
}
