use super::*;
use proptest::prelude::*;
use std::io::Write;

fn unpack(packed: &[u8], name: &str) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    Unpacker::new(packed, Path::new(name))?.read_to_end(&mut content)?;
    Ok(content)
}

fn pack(kind: Kind, content: &[u8]) -> Vec<u8> {
    match kind {
        Kind::Gzip => {
            let mut packer =
                flate2::GzBuilder::new().filename("a").comment("b").extra("c").write(Vec::new(), flate2::Compression::default());
            packer.write_all(content).unwrap();
            packer.finish().unwrap()
        }
        Kind::Zstd => ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest),
        Kind::Xz => {
            let mut packer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
            packer.write_all(content).unwrap();
            packer.finish().unwrap()
        }
        Kind::Bzip2 => {
            let mut packer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
            packer.write_all(content).unwrap();
            packer.finish().unwrap()
        }
    }
}

fn name(kind: Kind) -> String {
    format!("a.txt.{}", kind.endings()[0])
}

const TEXT: &[u8] = b"It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_was_packed_comes_out(content in prop::collection::vec(prop::sample::select(vec![b"a".to_vec(), b"bcd\n".to_vec(), vec![7; 3000]]), 0..90)) {
        let content = content.concat();
        for kind in Kind::ALL {
            prop_assert!(unpack(&pack(kind, &content), "a").unwrap() == content, "{kind:?}");
            let two = [pack(kind, &content), pack(kind, b""), pack(kind, TEXT)].concat();
            prop_assert!(unpack(&two, "a").unwrap() == [&content, TEXT].concat(), "{kind:?}");
        }
    }
}

#[test]
fn data_cut_short_anywhere_are_an_error() {
    for kind in Kind::ALL {
        let one = pack(kind, TEXT);
        let two = [&one[..], &one].concat();
        for length in (0..two.len()).filter(|length| *length != one.len()) {
            let error = unpack(&two[..length], &name(kind)).expect_err(&format!("{kind:?} cut at {length} of {}", two.len()));
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{kind:?} at {length}: {error}");
            assert!(error.to_string().contains(kind.name()), "{error}");
        }
    }
}

#[test]
fn a_flipped_byte_is_found_or_changes_nothing() {
    for kind in Kind::ALL {
        let packed = pack(kind, TEXT);
        let mut found = 0;
        for (at, mask) in (0..packed.len()).flat_map(|at| [1, 0x10, 0x80, 0xff].map(|mask| (at, mask))) {
            let mut damaged = packed.clone();
            damaged[at] ^= mask;
            match unpack(&damaged, "a") {
                Ok(content) => assert!(content == TEXT || Kind::of(&damaged).is_none(), "{kind:?}: byte {at}"),
                Err(_) => found += 1,
            }
        }
        assert!(found > 2 * packed.len(), "{kind:?}: {found}");
    }
}

#[test]
fn bytes_after_the_end_are_an_error() {
    for kind in Kind::ALL {
        let packed = pack(kind, TEXT);
        for rest in [&b"x"[..], b"more text", b"\0\0\0\0x"] {
            let error = unpack(&[&packed, rest].concat(), "a").unwrap_err().to_string();
            let at = packed.len() + if matches!(kind, Kind::Gzip | Kind::Xz) && rest[0] == 0 { 4 } else { 0 };
            assert_eq!(
                error,
                format!("the {} data end at byte {at} but other bytes follow; cut those off or fetch the file again", kind.name())
            );
        }
    }
}

#[test]
fn padding_is_passed_over_where_the_format_has_it() {
    let padded = |kind, zeros| unpack(&[pack(kind, TEXT), vec![0; zeros]].concat(), "a");
    assert_eq!(padded(Kind::Gzip, 70_001).unwrap(), TEXT);
    assert_eq!(padded(Kind::Xz, 400_000).unwrap(), TEXT);
    assert!(padded(Kind::Xz, 3).unwrap_err().to_string().contains("no multiple of 4"));
    assert!(padded(Kind::Zstd, 4).is_err() && padded(Kind::Bzip2, 4).is_err());
}

#[test]
fn skippable_frames_are_passed_over() {
    let frame = |length: u32| [&b"\x5a\x2a\x4d\x18"[..], &length.to_le_bytes(), &vec![1; length as usize]].concat();
    let packed = [frame(300_000), pack(Kind::Zstd, TEXT), frame(0), pack(Kind::Zstd, TEXT), frame(9)].concat();
    assert_eq!(unpack(&packed, "a").unwrap(), [TEXT, TEXT].concat());
    assert_eq!(unpack(&packed[..packed.len() - 1], "a").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_is_not_packed_stays_as_it_is() {
    for bytes in [&b""[..], b"BZh9 is no packed text", b"P*M", b"\x1f\x8b", TEXT] {
        assert_eq!(unpack(bytes, "a.txt").unwrap(), bytes);
    }
    assert_eq!(unpack(TEXT, "a.txt.gz").unwrap(), TEXT);
    let message = unpack(b"\x28\xb5", "a.tar.zst").unwrap_err().to_string();
    assert_eq!(message, "2 bytes are no whole zstd data, as its name promises; fetch it again");
}

/// A zstd frame of so many blocks of 128 KiB, each one byte repeated, with this window.
fn repeated(blocks: u32, window: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    for i in 1..=blocks {
        let header = (128 << 10 << 3) | 1 << 1 | u32::from(i == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(b'a');
    }
    frame
}

#[test]
fn a_bomb_stops_at_a_bound() {
    let packed = repeated(1000, 0x38);
    assert_eq!(unpack(&packed, "a").unwrap().len(), 1000 << 17);
    let mut unpacker = Unpacker::new(&packed[..], Path::new("a")).unwrap();
    unpacker.free_bytes = 1 << 20;
    let mut content = Vec::new();
    let error = unpacker.read_to_end(&mut content).unwrap_err().to_string();
    assert!(error.contains("1048576 + 2000 for each: a bomb; if it is sound, unpack it by hand"), "{error}");
    assert!(content.len() < 2 << 20, "{}", content.len());
    assert!(unpacker.read(&mut [0; 10]).is_err());
}

#[test]
fn a_window_beyond_the_bound_is_refused() {
    assert_eq!(unpack(&repeated(1, 17 << 3), "a").unwrap().len(), 1 << 17);
    let message = unpack(&repeated(1, 18 << 3), "a").unwrap_err().to_string();
    assert_eq!(message, "the zstd data need a window of more than 128 MiB at byte 6; unpack the file by hand");
}
