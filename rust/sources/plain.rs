//! Plain text: a document is a file, or what stands between separator lines, or a line, or a paragraph.

use super::reading::{Documents, Reading, finish, go_on};
use super::records::Records;
use super::window::Window;
use crate::error::{Error, Result};
use memchr::{memchr, memchr_iter, memmem};
use std::io::Read;
use std::path::Path;

/// The longest separator line.
const MAX_SEPARATOR_BYTES: usize = 1024;

/// Reads text. Empty documents are not handed on; no text is malformed.
///
/// # Errors
///
/// The stream fails, the separator is no line, or `out` gives an error.
pub fn read(input: &mut dyn Read, path: &Path, options: &Reading, out: &mut dyn Records) -> Result<()> {
    let window = &mut Window::new(input, path)?;
    match options.documents {
        Documents::File => parts(window, options, out),
        Documents::Line => lines(window, options.whole_bytes, out),
        Documents::Blank => paragraphs(window, options.whole_bytes, out),
    }
}

/// What is known of the end of a document.
enum End {
    /// Where it ends and where the next one starts.
    At(usize, usize),
    /// Up to here there is none.
    NotBefore(usize),
}

/// The end of the document in `text`, looked for from `from` on. `line_start` says that a line starts with `text`, and `ended`
/// that nothing follows it.
fn document_end(separator: &memmem::Finder, text: &[u8], from: usize, line_start: bool, ended: bool) -> End {
    let length = separator.needle().len();
    for i in separator.find_iter(&text[from..]) {
        let at = from + i;
        let begins = if at == 0 { line_start } else { text[at - 1] == b'\n' };
        match &text[at + length..] {
            _ if !begins => {}
            [b'\n', ..] => return End::At(at, at + length + 1),
            [b'\r', b'\n', ..] => return End::At(at, at + length + 2),
            [] | [b'\r'] if ended => return End::At(at, text.len()),
            [] | [b'\r'] => return End::NotBefore(at),
            _ => {}
        }
    }
    if ended { End::At(text.len(), text.len()) } else { End::NotBefore(text.len().saturating_sub(length - 1).max(from)) }
}

fn parts(window: &mut Window, options: &Reading, out: &mut dyn Records) -> Result<()> {
    let separator = options.separator.as_bytes();
    if separator.is_empty() || separator.len() > MAX_SEPARATOR_BYTES || separator.contains(&b'\n') {
        return Err(Error::Invalid(format!(
            "separator must be one line of 1 to {MAX_SEPARATOR_BYTES} bytes, got {:?}",
            options.separator.chars().take(40).collect::<String>()
        )));
    }
    let separator = memmem::Finder::new(separator);
    let whole_bytes = options.whole_bytes.max(2 * MAX_SEPARATOR_BYTES);
    let (mut line_start, mut begun, mut searched) = (true, false, 0);
    loop {
        let (text, start) = (window.ahead(), window.offset());
        match document_end(&separator, text, searched, line_start, window.ended()) {
            End::At(end, next) => {
                finish(out, begun, &text[..end], start)?;
                if next == text.len() && window.ended() {
                    return Ok(());
                }
                window.pass(next);
                (line_start, begun, searched) = (true, false, 0);
            }
            End::NotBefore(known) if begun || text.len() > whole_bytes => {
                go_on(out, &mut begun, &text[..known], start)?;
                line_start = if known == 0 { line_start } else { text[known - 1] == b'\n' };
                searched = 0;
                window.pass(known);
                window.fill(whole_bytes + 1)?;
            }
            End::NotBefore(known) => {
                searched = known;
                window.fill(whole_bytes + 1)?;
            }
        }
    }
}

fn lines(window: &mut Window, whole_bytes: usize, out: &mut dyn Records) -> Result<()> {
    let mut begun = false;
    loop {
        let (text, start) = (window.ahead(), window.offset());
        let mut from = 0;
        for end in memchr_iter(b'\n', text) {
            let line = &text[from..end];
            finish(out, begun, line.strip_suffix(b"\r").unwrap_or(line), start + from as u64)?;
            (begun, from) = (false, end + 1);
        }
        let rest = &text[from..];
        let mut known = from;
        if window.ended() {
            return finish(out, begun, rest, start + from as u64);
        }
        if begun || rest.len() > whole_bytes {
            // A carriage return may belong to the line's end.
            let rest = rest.strip_suffix(b"\r").unwrap_or(rest);
            go_on(out, &mut begun, rest, start + from as u64)?;
            known += rest.len();
        }
        window.pass(known);
        window.fill(whole_bytes.max(1) + 1)?;
    }
}

/// A line of more than `whole_bytes` is never blank: whether its text belongs to a document must be known in time.
fn paragraphs(window: &mut Window, whole_bytes: usize, out: &mut dyn Records) -> Result<()> {
    // The paragraph's text that is not yet handed on ends at `end`, and the line to be looked at starts at `line`; with no open
    // paragraph both are 0. Of a `long` line some was handed on.
    let (mut begun, mut long, mut end, mut line) = (false, false, 0, 0);
    loop {
        let (text, start) = (window.ahead(), window.offset());
        let found = memchr(b'\n', &text[line..]).map(|i| line + i);
        let stop = found.unwrap_or(text.len());
        if found.is_none() && !window.ended() {
            if !long && stop - line <= whole_bytes {
                if end > whole_bytes {
                    go_on(out, &mut begun, &text[..end], start)?;
                    window.pass(end);
                    (line, end) = (line - end, 0);
                }
                window.fill(line + whole_bytes + 1)?;
                continue;
            }
            let known = text.len() - usize::from(text.ends_with(b"\r"));
            go_on(out, &mut begun, &text[..known], start)?;
            window.pass(known);
            (long, end, line) = (begun, 0, 0);
            window.fill(whole_bytes.max(1) + 1)?;
            continue;
        }
        let this = &text[line..stop];
        if !long && this.len() <= whole_bytes && this.iter().all(|byte| matches!(byte, b' ' | b'\t'..=b'\r')) {
            finish(out, begun, &text[..end], start)?;
            window.pass(stop + usize::from(found.is_some()));
            (begun, end, line) = (false, 0, 0);
        } else {
            end = stop - usize::from(found.is_some() && this.ends_with(b"\r"));
            line = stop + 1;
            long = false;
        }
        if found.is_none() {
            let (text, start) = (window.ahead(), window.offset());
            return finish(out, begun, &text[..end], start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::formats::Format;
    use super::super::reading::tests::{collect, holds_in_any_pieces, texts};
    use super::*;
    use proptest::prelude::*;

    fn of(documents: Documents) -> Reading {
        Reading { documents, ..Reading::default() }
    }

    #[test]
    fn documents_stand_between_separator_lines() {
        for (text, expected) in [
            ("a\n<|endoftext|>\nb", vec!["a\n", "b"]),
            ("<|endoftext|>\na\n<|endoftext|>\r\n<|endoftext|>\nb\n<|endoftext|>", vec!["a\n", "b\n"]),
            ("a <|endoftext|>\n<|endoftext|> b", vec!["a <|endoftext|>\n<|endoftext|> b"]),
            ("a\n<|endoftext|>\r", vec!["a\n"]),
            ("\u{feff}<|endoftext|>\na", vec!["a"]),
            ("", vec![]),
            ("<|endoftext|>", vec![]),
        ] {
            assert_eq!(texts(Format::Text, text.as_bytes(), &of(Documents::File)), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_are_documents_without_their_ends() {
        assert_eq!(texts(Format::Text, b"a\r\n\n\r\nb\rc\nd\r", &of(Documents::Line)), ["a", "b\rc", "d\r"]);
    }

    #[test]
    fn paragraphs_stand_between_blank_lines() {
        let text = b"\n \na\n b\r\n\t\r\n\n c \n\nd\n";
        assert_eq!(texts(Format::Text, text, &of(Documents::Blank)), ["a\n b", " c ", "d"]);
    }

    #[test]
    fn a_separator_may_be_given() {
        let options = Reading { separator: "%%".into(), ..Reading::default() };
        assert_eq!(texts(Format::Text, b"%\n%%\nb\n%%%\n", &options), ["%\n", "b\n%%%\n"]);
        let options = Reading { separator: "a\nb".into(), ..Reading::default() };
        let (_, error) = collect(Format::Text, b"", &options);
        assert_eq!(error.unwrap(), r#"separator must be one line of 1 to 1024 bytes, got "a\nb""#);
    }

    /// The rule, word for word, on a whole file.
    fn split_slowly(text: &str, kind: Documents, whole_bytes: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        for line in text.split_inclusive('\n') {
            let body = line.strip_suffix("\r\n").or(line.strip_suffix('\n')).unwrap_or(line);
            let last = all.last_mut().unwrap();
            match kind {
                Documents::Line => all.push(body.to_string()),
                Documents::File if body == "<|endoftext|>" || line == "<|endoftext|>\r" => all.push(String::new()),
                Documents::Blank if body.trim().is_empty() && line.trim_end_matches('\n').len() <= whole_bytes => all.push(String::new()),
                Documents::File | Documents::Blank => last.push_str(line),
            }
        }
        for text in all.iter_mut().filter(|_| kind == Documents::Blank) {
            let length = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(text).len();
            text.truncate(length);
        }
        all.retain(|text| !text.is_empty());
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn reading_in_pieces_equals_the_rule_on_the_whole(
            parts in prop::collection::vec((prop::sample::select(vec![
                "a word or two. ", "\n", "\r\n", "\r", "<|endoftext|>", "\n<|endoftext|>\n", "字", " ", "x", "\n\n",
            ]), prop::sample::select(vec![1usize, 1, 2, 30, 2000])), 0..14),
            kind in prop::sample::select(vec![Documents::File, Documents::Line, Documents::Blank]),
            whole_bytes in prop::sample::select(vec![0usize, 1, 7, 4096, 1 << 20]),
            pieces in prop::collection::vec(1usize..300, 1..4),
        ) {
            let text: String = parts.iter().map(|(part, n)| part.repeat(*n)).collect();
            let options = Reading { whole_bytes, ..of(kind) };
            prop_assert_eq!(texts(Format::Text, text.as_bytes(), &options), split_slowly(&text, kind, whole_bytes));
            holds_in_any_pieces(Format::Text, text.as_bytes(), &options, &pieces)?;
            for (found, start, end) in collect(Format::Text, text.as_bytes(), &options).0.found {
                prop_assert_eq!(found.unwrap(), &text.as_bytes()[start as usize..end as usize]);
            }
        }
    }
}
