//! Any expression is refused in one line, or gives pieces that add up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinygpt::{Custom, Pattern};

fuzz_target!(|input: (String, &str)| {
    let (expression, text) = input;
    match Custom::new(&expression) {
        Ok(custom) => {
            let pattern = Pattern::Custom(custom.into());
            let pieces: Vec<&[u8]> = pattern.pieces(text).collect();
            assert!(pieces.iter().all(|piece| !piece.is_empty()) && pieces.concat() == text.as_bytes());
        }
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
});
