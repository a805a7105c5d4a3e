//! What packs data, told from their first bytes.

use std::path::Path;

/// A way of packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Gzip, Kind::Zstd, Kind::Xz, Kind::Bzip2];

    pub(super) fn name(self) -> &'static str {
        ["gzip", "zstd", "xz", "bzip2"][self as usize]
    }

    /// What the format calls its members.
    pub(super) fn unit(self) -> &'static str {
        ["member", "frame", "stream", "stream"][self as usize]
    }

    /// Endings of names.
    pub(super) fn endings(self) -> &'static [&'static str] {
        [&["gz", "tgz"][..], &["zst", "tzst"], &["xz", "txz"], &["bz2", "tbz2", "tbz"]][self as usize]
    }

    /// Whether `head` is the start of such data, as far as it goes; ten bytes decide.
    pub(super) fn may_begin(self, head: &[u8]) -> bool {
        let begins = |magic: &[u8]| head.iter().zip(magic).all(|(found, expected)| found == expected);
        match self {
            Kind::Gzip => begins(b"\x1f\x8b\x08"),
            Kind::Zstd => {
                let skippable = head.iter().zip(*b"\x50\x2a\x4d\x18").enumerate();
                begins(b"\x28\xb5\x2f\xfd")
                    || skippable.map(|(i, (found, expected))| (if i == 0 { found & 0xf0 } else { *found }, expected)).all(|(a, b)| a == b)
            }
            Kind::Xz => begins(b"\xfd7zXZ\0"),
            // Text may begin with "BZh", so the mark of the first block or of the end counts too.
            Kind::Bzip2 => {
                let level = head.get(3).is_none_or(|level| (b'1'..=b'9').contains(level));
                let rest = head.get(4..).unwrap_or_default();
                let block = |magic: &[u8]| rest.iter().zip(magic).all(|(found, expected)| found == expected);
                begins(b"BZh") && level && (block(b"\x31\x41\x59\x26\x53\x59") || block(b"\x17\x72\x45\x38\x50\x90"))
            }
        }
    }

    /// Bytes after which [`Kind::may_begin`] is certain.
    pub(super) fn certain_bytes(self) -> usize {
        [3, 4, 6, 10][self as usize]
    }

    /// The kind that `head` is the start of, where it is long enough to tell.
    pub(super) fn of(head: &[u8]) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| head.len() >= kind.certain_bytes() && kind.may_begin(head))
    }

    /// What the ending of a name promises.
    pub(super) fn named(name: &Path) -> Option<Kind> {
        let ending = name.extension()?.to_str()?.to_ascii_lowercase();
        Kind::ALL.into_iter().find(|kind| kind.endings().contains(&&*ending))
    }
}
