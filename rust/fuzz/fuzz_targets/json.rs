//! A JSON file of any shape, damaged or not, is read alike in whatever pieces it comes, and refused in one line.
#![no_main]

mod readers;

use libfuzzer_sys::fuzz_target;
use tinygpt::{Format, Reading};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (field, whole_bytes, bytes) = input;
    let names = [None, Some("text"), Some("a.b"), Some("a.0.text"), Some("1")];
    let text_field = names[usize::from(field) % names.len()].map(String::from);
    readers::check(Format::Json, bytes, &Reading { text_field, whole_bytes: whole_bytes.into(), ..Reading::default() });
});
