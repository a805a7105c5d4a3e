//! What every reader of a format promises, whatever it is given.

use std::io::Read;
use std::path::Path;
use tinygpt::{Format, Malformed, Reading, Records, Result};

/// Texts with their places, none where a record was refused, and the sum of what was handed on.
#[derive(Default)]
struct Collected {
    found: Vec<(Option<Vec<u8>>, u64, u64)>,
    open: Option<(Vec<u8>, u64)>,
    bytes: usize,
    calls: usize,
}

impl Records for Collected {
    fn begin(&mut self, offset: u64) -> Result<()> {
        assert!(self.open.is_none());
        self.open = Some((Vec::new(), offset));
        Ok(())
    }

    fn text(&mut self, bytes: &[u8]) -> Result<()> {
        self.open.as_mut().unwrap().0.extend_from_slice(bytes);
        self.bytes += bytes.len();
        self.calls += 1;
        Ok(())
    }

    fn end(&mut self, offset: u64) -> Result<()> {
        let (text, start) = self.open.take().unwrap();
        assert!(!text.is_empty() && start < offset);
        self.found.push((Some(text), start, offset));
        Ok(())
    }

    fn refuse(&mut self, offset: u64, end: u64) -> Result<()> {
        assert!(self.open.is_none() && offset < end);
        self.found.push((None, offset, end));
        Ok(())
    }
}

/// A stream in pieces of so many bytes.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(buffer.len()).min(self.0.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

/// Reads these bytes in every way, and checks that the ways agree.
pub fn check(format: Format, bytes: &[u8], options: &Reading) {
    let read = |piece: usize, options: &Reading| {
        let mut out = Collected::default();
        let result = format.read(&mut Pieces(bytes, piece), Path::new("a"), options, &mut out);
        // A message may stand for three bytes or so, a character or a line end for six.
        assert!(out.bytes <= 4 * bytes.len() && out.calls <= 2 * bytes.len());
        assert!(out.found.iter().all(|(_, _, end)| *end <= bytes.len() as u64));
        assert!(out.found.windows(2).all(|pair| pair[0].2 <= pair[1].1));
        assert!(result.is_err() || out.open.is_none());
        (out.found, result.err().map(|error| error.to_string()))
    };
    let skip = Reading { malformed: Malformed::Skip, whole_bytes: 1 << 20, ..options.clone() };
    let strict = Reading { malformed: Malformed::Error, ..skip.clone() };
    let whole = read(usize::MAX, &skip);
    assert_eq!(read(1, &skip), whole);
    let (found, error) = read(usize::MAX, &strict);
    assert!(whole.0.starts_with(&found) && found.iter().all(|(text, ..)| text.is_some()));
    assert_eq!(error.is_none(), whole.1.is_none() && whole.0 == found);
    assert!(error.is_none_or(|error| !error.contains('\n')));

    let streamed = Reading { whole_bytes: options.whole_bytes, ..skip };
    let long = read(3, &streamed);
    assert_eq!(read(usize::MAX, &streamed), long);
    let texts = |found: &[(Option<Vec<u8>>, u64, u64)]| found.iter().filter(|(text, ..)| text.is_some()).cloned().collect::<Vec<_>>();
    if format != Format::Warc {
        assert!(texts(&whole.0).starts_with(&texts(&long.0)), "{whole:?} {long:?}");
    }
}
