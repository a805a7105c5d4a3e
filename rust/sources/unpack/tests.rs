use super::ahead::Sizes;
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

/// What comes out in pieces of `piece` bytes, and the error that ends it; with sizes, by threads.
fn outcome(packed: impl Read, sizes: Option<Sizes>, piece: usize) -> (Vec<u8>, Option<String>) {
    let (mut content, mut bytes) = (Vec::new(), vec![0; piece]);
    let mut unpacker = match Unpacker::new(packed, Path::new("a")) {
        Ok(unpacker) => unpacker,
        Err(error) => return (content, Some(error.to_string())),
    };
    if let Some(sizes) = sizes.filter(|_| unpacker.is_packed()) {
        unpacker.ahead = Some(Box::new(Ahead::of(3, sizes)));
    }
    loop {
        match unpacker.read(&mut bytes) {
            Ok(0) => return (content, None),
            Ok(n) => content.extend_from_slice(&bytes[..n]),
            Err(error) => return (content, Some(error.to_string())),
        }
    }
}

const SMALL: Sizes = Sizes { stretch: 40, longest: 400, more: 60, unpacked: 5000 };

fn gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
    packer.write_all(content).unwrap();
    packer.finish().unwrap()
}

/// Members of all sorts: some hold members, stored, some are long, some become too much.
fn member() -> impl Strategy<Value = Vec<u8>> {
    let texts = prop::collection::vec(
        prop::sample::select(vec![&b"a"[..], b"bcd\n", b"\x1f\x8b\x08\0", b"\0\0\0\0\x1f\x8b\x08\0\0\0\0\0\0\0"]),
        0..40,
    );
    let text = texts.prop_map(|texts| texts.concat());
    prop_oneof![
        8 => (text.clone(), 0u32..7).prop_map(|(text, level)| gzip(&text, level)),
        2 => (prop::collection::vec(text, 0..4), 0u32..2).prop_map(|(texts, level)| gzip(&texts.iter().map(|text| gzip(text, 6)).collect::<Vec<_>>().concat(), level)),
        1 => (1usize..9000).prop_map(|length| gzip(&vec![b'z'; length], 6)),
        1 => prop::collection::vec(any::<u8>(), 1..900).prop_map(|bytes| gzip(&bytes, 1)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn members_unpacked_by_threads_are_those_unpacked_in_turn(
        members in prop::collection::vec(member(), 1..40),
        damage in prop::option::weighted(0.4, (any::<prop::sample::Index>(), 1u8..)),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
        rest in prop::sample::select(vec![&b""[..], b"", b"", b"\0\0", b"x", b"\0x"]),
        stretch in 1usize..300,
        more in 1usize..200,
        longest in 0usize..600,
        piece in 1usize..700,
    ) {
        let mut packed = [&members.concat(), rest].concat();
        if let Some((at, mask)) = damage {
            let at = at.index(packed.len());
            packed[at] ^= mask;
        }
        let packed = &packed[..cut.map_or(packed.len(), |at| at.index(packed.len()))];
        let sizes = Sizes { stretch, more, longest: stretch + longest, unpacked: 4 * stretch.max(1000) };
        prop_assert_eq!(outcome(packed, Some(sizes), piece), outcome(packed, None, piece));
    }
}

#[test]
fn data_cut_short_anywhere_or_with_a_flipped_byte_end_alike_by_threads() {
    let members: Vec<Vec<u8>> = (0..12).map(|i| gzip(&TEXT[..i * 9], 6)).collect();
    let packed = members.concat();
    for at in 0..packed.len() {
        assert_eq!(outcome(&packed[..at], Some(SMALL), 50), outcome(&packed[..at], None, 50), "cut at {at}");
        let mut damaged = packed.clone();
        damaged[at] ^= 0x41;
        assert_eq!(outcome(&damaged[..], Some(SMALL), 50), outcome(&damaged[..], None, 50), "byte {at}");
    }
}

/// Fails after these bytes.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::other("the disk is gone")) } else { self.0.read(out) }
    }
}

#[test]
fn what_lies_before_a_failing_read_comes_out_first() {
    let packed: Vec<u8> = (0..99).flat_map(|i| gzip(&TEXT[..i], 6)).collect();
    for length in (20..packed.len()).step_by(37) {
        let (content, error) = outcome(Failing(&packed[..length]), Some(SMALL), 50);
        assert_eq!((content, error), outcome(Failing(&packed[..length]), None, 50), "{length}");
    }
}

#[test]
fn a_large_file_of_members_comes_out_whole_by_threads_and_a_cut_one_says_where() {
    let numbers: Vec<String> = (0..400_000u32).map(|i| format!("{} ", i.wrapping_mul(2_654_435_761))).collect();
    let members = numbers.chunks(500).map(|some| gzip(some.concat().as_bytes(), 3));
    let long = gzip(numbers.concat().as_bytes(), 3);
    let packed = [members.clone().collect::<Vec<_>>().concat(), long, members.collect::<Vec<_>>().concat()].concat();
    let unpack = |packed: &[u8], threads| {
        let mut unpacker = Unpacker::new(packed, Path::new("a")).unwrap();
        unpacker.use_threads(threads);
        let mut content = Vec::new();
        let error = unpacker.read_to_end(&mut content).err().map(|error| error.to_string());
        (content, error)
    };
    assert!(unpack(&packed, 2) == (numbers.concat().repeat(3).into_bytes(), None));
    let cut = &packed[..packed.len() - 300_000];
    assert!(unpack(cut, 2) == unpack(cut, 1));
}
