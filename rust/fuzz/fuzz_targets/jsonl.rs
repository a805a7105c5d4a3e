//! JSON lines, damaged or not, are read alike in whatever pieces they come, and refused in one line or one by one.
#![no_main]

mod readers;

use libfuzzer_sys::fuzz_target;
use tinygpt::{Format, Reading};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (field, whole_bytes, bytes) = input;
    let names = [None, Some("text"), Some("a.b"), Some("a.0.text"), Some("1")];
    let text_field = names[usize::from(field) % names.len()].map(String::from);
    readers::check(Format::Jsonl, bytes, &Reading { text_field, whole_bytes: whole_bytes.into(), ..Reading::default() });
});
