//! WARC records, damaged or not, are read alike in whatever pieces they come, and refused in one line or one by one.
#![no_main]

mod readers;

use libfuzzer_sys::fuzz_target;
use tinygpt::{Format, Reading};

fuzz_target!(|input: (u8, &[u8])| {
    let (whole_bytes, bytes) = input;
    readers::check(Format::Warc, bytes, &Reading { whole_bytes: whole_bytes.into(), ..Reading::default() });
});
