//! Project Gutenberg's books without the licence that surrounds them.

use crate::error::Result;
use memchr::memchr;

/// Bytes of a document in which the end of its header is looked for.
const HEAD_BYTES: usize = 256 << 10;
/// Bytes after a marker in which the end of the small print may still follow.
const SMALL_PRINT_BYTES: usize = 32 << 10;
/// Lines longer than this are text, whatever is in them.
const MAX_MARKER_BYTES: usize = 1 << 10;
/// Empty lines held back, since they go with the footer if one follows.
const MAX_HELD_BYTES: usize = 64 << 10;
/// Lines that a title may run on within a marker.
const MAX_TITLE_LINES: usize = 4;

/// The body of a document: what stands between the header and the footer of Project Gutenberg.
///
/// Raw bytes go in as they are read and those of the body come out, whatever the pieces they came in; at most about
/// 320 KiB are held. The header ends with a line such as `*** START OF THE PROJECT GUTENBERG EBOOK` within 256 KiB, or with
/// that of the small print of older books; the footer begins with `*** END OF THE PROJECT GUTENBERG EBOOK` or
/// `End of Project Gutenberg's`, or with the empty lines before that. A document without such lines is all body, and one of
/// several books is the bodies of all.
#[derive(Debug)]
pub struct GutenbergBody {
    place: Place,
    /// Bytes not yet decided on.
    held: Vec<u8>,
    /// Of those, where the first line begins that was not looked at.
    line: usize,
    /// Whether that line is known to be longer than any marker.
    is_long: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    /// After the marker that ends a header: empty lines are left out.
    Start,
    Body,
    Footer,
}

impl Default for GutenbergBody {
    fn default() -> Self {
        GutenbergBody { place: Place::Head, held: Vec::new(), line: 0, is_long: false }
    }
}

impl GutenbergBody {
    /// Takes more of the document and hands on what is certain to be of its body.
    ///
    /// # Errors
    ///
    /// What `keep` returns.
    pub fn push(&mut self, bytes: &[u8], keep: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.held.extend_from_slice(bytes);
        if self.place == Place::Head && self.held.len() < HEAD_BYTES {
            return Ok(());
        }
        self.advance(false, keep)
    }

    /// Ends the document; another may follow.
    ///
    /// # Errors
    ///
    /// What `keep` returns.
    pub fn finish(&mut self, keep: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let result = self.advance(true, keep);
        self.held.clear();
        (self.place, self.line, self.is_long) = (Place::Head, 0, false);
        result
    }

    fn advance(&mut self, is_end: bool, keep: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut from = 0;
        if self.place == Place::Head {
            let head = &self.held[..self.held.len().min(HEAD_BYTES)];
            (self.place, from) = header_end(head, is_end).map_or((Place::Body, 0), |end| (Place::Start, end));
            self.line = from;
        }
        // Of what is held, all before `from` is done with, and from there to `sure` is of the body.
        let mut sure = from;
        while let Some(width) = self.line_width(is_end) {
            let line = &self.held[self.line..self.line + width];
            let is_long = self.is_long || width > MAX_MARKER_BYTES;
            let is_open = !line.ends_with(b"\n");
            match (self.place, if is_long { Line::Text } else { kind(line) }) {
                (Place::Body, Line::Empty) => {
                    self.line += width;
                    sure = if self.line - sure > MAX_HELD_BYTES { self.line } else { sure };
                }
                (Place::Start | Place::Body, Line::End) => {
                    keep_some(&self.held[from..sure], keep)?;
                    self.skip(width, &mut from, &mut sure);
                    self.place = Place::Footer;
                }
                (Place::Footer, Line::Start) => {
                    let Some(width) = marker_width(&self.held[self.line..], is_end) else { break };
                    self.skip(width, &mut from, &mut sure);
                    self.place = Place::Start;
                }
                (Place::Start, Line::Empty) | (Place::Footer, _) => self.skip(width, &mut from, &mut sure),
                (_, _) => {
                    self.place = Place::Body;
                    self.line += width;
                    sure = self.line;
                }
            }
            self.is_long = is_long && is_open;
        }
        if is_end && self.place == Place::Body {
            sure = self.held.len();
        }
        keep_some(&self.held[from..sure], keep)?;
        self.held.drain(..sure);
        self.line -= sure;
        Ok(())
    }

    /// Bytes of the next line, if they are there or it is long.
    fn line_width(&self, is_end: bool) -> Option<usize> {
        let rest = &self.held[self.line..];
        match memchr(b'\n', rest) {
            Some(at) => Some(at + 1),
            None if rest.is_empty() => None,
            None => (is_end || self.is_long || rest.len() > MAX_MARKER_BYTES).then_some(rest.len()),
        }
    }

    fn skip(&mut self, width: usize, from: &mut usize, sure: &mut usize) {
        self.line += width;
        (*from, *sure) = (self.line, self.line);
    }
}

fn keep_some(bytes: &[u8], keep: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    if bytes.is_empty() { Ok(()) } else { keep(bytes) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Text,
    Empty,
    Start,
    SmallPrint,
    End,
}

/// What a line is, by how it begins, whatever the case.
fn kind(line: &[u8]) -> Line {
    let line = line.trim_ascii();
    match line.first() {
        None => return Line::Empty,
        Some(b'*' | b'E' | b'e') => {}
        Some(_) => return Line::Text,
    }
    let words = without_stars(line);
    let has_stars = words.len() < line.len();
    if after(words, "END OF ").is_some_and(names_project) {
        return Line::End;
    }
    if has_stars && after(words, "START OF ").is_some_and(names_project) {
        return Line::Start;
    }
    if has_stars && after(words, "END").is_some_and(|rest| after(without_stars(rest), "THE SMALL PRINT").is_some()) {
        return Line::SmallPrint;
    }
    Line::Text
}

fn names_project(words: &[u8]) -> bool {
    let articles = ["THE ", "THIS ", "COPYRIGHTED "];
    let name = articles.iter().fold(words, |words, article| after(words, article).unwrap_or(words));
    after(name, "PROJECT GUTENBERG").is_some()
}

/// What follows the words that the text begins with.
fn after<'a>(text: &'a [u8], words: &str) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(words.len())?;
    start.eq_ignore_ascii_case(words.as_bytes()).then_some(rest)
}

fn without_stars(line: &[u8]) -> &[u8] {
    let stars = line.iter().take_while(|byte| matches!(byte, b'*' | b' ')).count();
    &line[stars..]
}

/// Where the header ends in the first bytes of a document, if it has one.
fn header_end(head: &[u8], is_whole: bool) -> Option<usize> {
    let mut end = None;
    let mut start = 0;
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        if end.is_some_and(|end| start > end + SMALL_PRINT_BYTES) || !(is_whole || line.ends_with(b"\n")) {
            break;
        }
        match kind(line) {
            _ if line.len() > MAX_MARKER_BYTES => {}
            Line::End => break,
            Line::Start if end.is_none() => end = marker_width(&head[start..], true).map(|width| start + width),
            Line::SmallPrint => end = Some(start + line.len()),
            _ => {}
        }
        start += line.len();
    }
    end
}

/// Bytes of the marker that begins the text, with the lines that its title runs on; none when more text must be seen.
fn marker_width(text: &[u8], is_whole: bool) -> Option<usize> {
    let mut end = 0;
    let mut first = None;
    for line in text.split_inclusive(|byte| *byte == b'\n').take(MAX_TITLE_LINES) {
        if !is_whole && !line.ends_with(b"\n") && line.len() <= MAX_MARKER_BYTES {
            return None;
        }
        end += line.len();
        let visible = line.trim_ascii();
        if visible.ends_with(b"*") {
            return Some(end);
        }
        if visible.is_empty() {
            return first;
        }
        first = first.or(Some(end));
    }
    let is_seen = is_whole || text.split_inclusive(|byte| *byte == b'\n').nth(MAX_TITLE_LINES - 1).is_some();
    first.filter(|_| is_seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body_of(text: &[u8], chunk: usize) -> Vec<u8> {
        let mut result = Vec::new();
        let mut keep = |bytes: &[u8]| {
            result.extend_from_slice(bytes);
            Ok(())
        };
        let mut body = GutenbergBody::default();
        for bytes in text.chunks(chunk) {
            body.push(bytes, &mut keep).unwrap();
            assert!(body.held.len() <= HEAD_BYTES + MAX_HELD_BYTES + MAX_TITLE_LINES * MAX_MARKER_BYTES + chunk);
        }
        body.finish(&mut keep).unwrap();
        result
    }

    #[test]
    fn headers_and_footers_of_all_times_are_known() {
        for (text, expected) in [
            (
                "Title\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n\nbody\n\nmore\n\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\nlicence",
                "body\n\nmore\n",
            ),
            (
                "*** START OF THIS PROJECT GUTENBERG EBOOK X ***\r\n\r\nProduced by Y\r\n\r\nbody\r\n\r\nEnd of Project Gutenberg's X, by Y\r\n\r\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\r\n",
                "Produced by Y\r\n\r\nbody\r\n",
            ),
            ("***START OF THE PROJECT GUTENBERG EBOOK X***\nbody\n***END OF THE PROJECT GUTENBERG EBOOK X***\n", "body\n"),
            ("*** START OF THE PROJECT GUTENBERG EBOOK A TITLE THAT\nRUNS ON ***\n\nbody", "body"),
            ("*** START OF THE PROJECT GUTENBERG EBOOK NOT CLOSED\nbody\n\nb ***\n", "body\n\nb ***\n"),
            (
                "***START**THE SMALL PRINT!**START***\nx\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\nbody\n\nEnd of The Project Gutenberg Etext of X\n",
                "body\n",
            ),
            ("*** START OF THE PROJECT GUTENBERG EBOOK X ***\nx\n*END THE SMALL PRINT! FOR EBOOKS*Ver.02/11/02*END*\nbody\n", "body\n"),
            ("\n\nno marker\n\n", "\n\nno marker\n\n"),
            ("\n only a footer\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n*** START: FULL LICENSE ***\n", "\n only a footer\n"),
            (
                "*** START OF PROJECT GUTENBERG X ***\na\n*** END OF THE PROJECT GUTENBERG X ***\nlicence\n*** START OF THE PROJECT GUTENBERG Y\nZ ***\n\nb",
                "a\nb",
            ),
            ("*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***", ""),
            (
                "He said: End of Project Gutenberg\nEnd of the project\n* END of it *\n",
                "He said: End of Project Gutenberg\nEnd of the project\n* END of it *\n",
            ),
            ("", ""),
        ] {
            for chunk in [1, 7, 1 << 20] {
                assert_eq!(String::from_utf8(body_of(text.as_bytes(), chunk)).unwrap(), expected, "{text:?} in chunks of {chunk}");
            }
        }
    }

    #[test]
    fn shared_books_have_the_expected_first_and_last_lines() {
        let samples = std::env::var("TINYGPT_SAMPLES").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data").into());
        let folder = std::path::Path::new(&samples).join("gutenberg");
        if !folder.is_dir() {
            eprintln!("skipped: no folder {}", folder.display());
            return;
        }
        for (name, first, last, lines) in [
            ("twain_dogs_tale.txt", "Produced by David Widger", "humble little friend is gone where go the beasts that perish.'”", 387),
            (
                "dickens_christmas_carol.txt",
                "Produced by Suzanne Shell, Janet Blenkinship and the Online",
                "+---------------------------------------------------------------+",
                3583,
            ),
        ] {
            let body = String::from_utf8(body_of(&std::fs::read(folder.join(name)).unwrap(), 1000)).unwrap();
            let found: Vec<&str> = body.lines().map(str::trim).collect();
            assert_eq!((found[0], found[found.len() - 1], found.len()), (first, last, lines), "{name}");
        }
    }

    fn books() -> impl Strategy<Value = Vec<u8>> {
        let start = "*** START OF THE PROJECT GUTENBERG EBOOK X ***\n";
        let long = "x".repeat(MAX_MARKER_BYTES) + "\n";
        let blank = "\r\n".repeat(MAX_HELD_BYTES / 2 - 3);
        let far = "far\n".repeat(HEAD_BYTES / 8);
        let part = prop::sample::select(vec![
            start.into(),
            start.replace(" ***", ""),
            "*** END OF THE PROJECT GUTENBERG EBOOK X ***\n".into(),
            "End of Project Gutenberg's\n".into(),
            "*END THE SMALL PRINT*\n".into(),
            "a ***\n".into(),
            "\n".into(),
            " \r\n".into(),
            "b".into(),
            "c\n".into(),
            long,
            blank,
            far,
        ]);
        prop::collection::vec(part, 0..14).prop_map(|parts: Vec<String>| parts.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn the_body_does_not_depend_on_how_the_text_is_cut(text in books(), chunk in 1usize..5000) {
            prop_assert!(body_of(&text, text.len().max(1)) == body_of(&text, chunk));
        }
    }
}
