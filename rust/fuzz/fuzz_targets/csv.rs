//! Rows, ragged or not, are read alike in whatever pieces they come, and refused in one line or one by one.
#![no_main]

mod readers;

use libfuzzer_sys::fuzz_target;
use tinygpt::{Format, Reading};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (bits, whole_bytes, bytes) = input;
    let text_field = [None, Some("text"), Some("0"), Some("1")][usize::from(bits & 3)].map(String::from);
    let header = [None, None, Some(false), Some(true)][usize::from(bits >> 2 & 3)];
    let delimiter = [None, Some(b','), Some(b'\t'), Some(bits)][usize::from(bits >> 4 & 3)];
    readers::check(Format::Csv, bytes, &Reading { text_field, header, delimiter, whole_bytes: whole_bytes.into(), ..Reading::default() });
});
