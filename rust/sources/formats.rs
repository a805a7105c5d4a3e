//! Which format a file has, told from its name.

use std::path::Path;

/// Endings of text files.
const TEXT_ENDINGS: [&str; 58] = [
    "txt", "text", "md", "markdown", "rst", "tex", "org", "adoc", "py", "pyi", "rs", "c", "h", "cc", "cpp", "cxx", "hh", "hpp", "cu",
    "java", "kt", "scala", "groovy", "js", "mjs", "jsx", "ts", "tsx", "vue", "go", "rb", "php", "cs", "fs", "swift", "m", "dart", "sh",
    "bash", "zsh", "ps1", "sql", "r", "jl", "lua", "pl", "pm", "hs", "ml", "ex", "exs", "erl", "clj", "lisp", "el", "html", "css", "zig",
];
/// Endings that say how a file is packed; the one before them says what it holds.
const PACKED_ENDINGS: [&str; 4] = ["gz", "zst", "xz", "bz2"];

/// How a file holds its documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    Text,
    /// One JSON value a line.
    Jsonl,
    /// One JSON array or object.
    Json,
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
    /// A web archive, or the texts taken from one (WET).
    Warc,
    /// Apache Parquet.
    Parquet,
    /// A tar archive.
    Tar,
    /// A zip archive.
    Zip,
}

impl Format {
    /// The names by which formats are chosen.
    pub const NAMES: [(&'static str, Format); 9] = [
        ("text", Format::Text),
        ("jsonl", Format::Jsonl),
        ("json", Format::Json),
        ("csv", Format::Csv),
        ("tsv", Format::Tsv),
        ("warc", Format::Warc),
        ("parquet", Format::Parquet),
        ("tar", Format::Tar),
        ("zip", Format::Zip),
    ];

    /// Its name in [`Format::NAMES`].
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].0
    }

    /// The format of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Format> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// What a file's name says, endings of packing taken off; text when it says nothing.
    #[must_use]
    pub fn of(path: &Path) -> Format {
        Self::known(path).unwrap_or(Format::Text)
    }

    /// The same, if the ending is one that folders are searched for.
    #[must_use]
    pub fn known(path: &Path) -> Option<Format> {
        let ending = ending(path)?;
        if PACKED_ENDINGS.contains(&&*ending) {
            return Self::known(Path::new(path.file_stem()?)).filter(|format| !matches!(format, Format::Zip | Format::Parquet));
        }
        match &*ending {
            "jsonl" | "ndjson" => Some(Format::Jsonl),
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "tsv" => Some(Format::Tsv),
            "warc" | "wet" => Some(Format::Warc),
            "parquet" => Some(Format::Parquet),
            "tar" | "tgz" | "tzst" | "txz" | "tbz2" | "tbz" => Some(Format::Tar),
            "zip" => Some(Format::Zip),
            ending => TEXT_ENDINGS.contains(&ending).then_some(Format::Text),
        }
    }
}

fn ending(path: &Path) -> Option<String> {
    path.extension()?.to_str().map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_format() {
        for (names, expected) in [
            ("a.txt a.txt.gz A.MD.XZ a.rs.bz2", Some(Format::Text)),
            ("a.jsonl a.jsonl.zst a.ndjson", Some(Format::Jsonl)),
            ("a.json a.json.gz", Some(Format::Json)),
            ("a.csv.gz", Some(Format::Csv)),
            ("a.tsv", Some(Format::Tsv)),
            ("a.warc.wet.gz a.wet a.warc a.warc.gz", Some(Format::Warc)),
            ("a.parquet", Some(Format::Parquet)),
            ("a.tar a.tar.gz a.tgz a.tar.zst a.txz a.tbz2", Some(Format::Tar)),
            ("a.zip", Some(Format::Zip)),
            ("a a.gz .txt a.png a.zip.gz a.txt.gz.old", None),
        ] {
            for name in names.split(' ') {
                assert_eq!(Format::known(Path::new(name)), expected, "{name}");
            }
        }
        assert_eq!(Format::of(Path::new("notes.log")), Format::Text);
    }

    #[test]
    fn every_format_has_its_name() {
        for (name, format) in Format::NAMES {
            assert_eq!((format.name(), Format::from_name(name)), (name, Some(format)));
        }
        assert_eq!(Format::from_name("xml"), None);
    }
}
