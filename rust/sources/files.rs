//! Which files make up a corpus.

use super::formats::Format;
use super::patterns::{Patterns, fixed_folder, is_pattern};
use super::streams::binary_at;
use super::unpack::is_packed;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Bytes of a file by which text is told from what is not.
const PROBE_BYTES: u64 = 8 << 10;

/// A file of the corpus as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// As given, or below the folder given.
    pub path: PathBuf,
    /// Size in bytes, packed as it is.
    pub bytes: u64,
    /// How it holds its documents.
    pub format: Format,
}

/// Which files are taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// Of a folder, those whose name, or path below the folder where the pattern holds a `/`, matches one of these globs,
    /// in place of those with a known ending.
    pub include: Option<&'a [String]>,
    /// The format of all files, in place of what their names say.
    pub format: Option<Format>,
    /// A folder that is passed over where it lies in another, for it is written to.
    pub exclude: Option<&'a Path>,
}

/// The files of a corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order in which they are read.
    pub files: Vec<InputFile>,
    /// Those found in folders or by globs that will not be read, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

/// The files that `paths` name: each file itself; below each folder, in the order of their names, all text files or, where
/// there are none, all files with a known ending; what matches a glob such as `books/*.txt` or `books/**`; and what the
/// lines of the file `list` name for a path `@list`, those left out that are blank or begin with `#`. Names that begin with
/// a dot are passed over in folders. A path that is named twice counts twice.
///
/// # Errors
///
/// A path that is missing or no regular file, a folder or a glob without a file to read, a malformed glob, a file that
/// cannot be opened.
pub fn list_files(paths: &[PathBuf], choice: &Choice) -> Result<Listing> {
    let exclude = choice.exclude.and_then(|folder| folder.canonicalize().ok());
    let search = Search { patterns: choice.include.map(Patterns::new).transpose()?, choice, exclude };
    let mut listing = Listing::default();
    for path in paths {
        match path.to_str().and_then(|path| path.strip_prefix('@')) {
            Some(list) => {
                for path in listed(Path::new(list))? {
                    search.add(&path, &mut listing)?;
                }
            }
            None => search.add(path, &mut listing)?,
        }
    }
    Ok(listing)
}

/// The paths that a list names.
fn listed(list: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(list).map_err(Error::io(list))?;
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let paths: Vec<PathBuf> = lines.map(PathBuf::from).collect();
    if paths.is_empty() {
        return Err(Error::Invalid(format!("{}: no path in this list; write one a line", list.display())));
    }
    Ok(paths)
}

struct Search<'a> {
    patterns: Option<Patterns>,
    choice: &'a Choice<'a>,
    exclude: Option<PathBuf>,
}

impl Search<'_> {
    fn add(&self, path: &Path, listing: &mut Listing) -> Result<()> {
        let found = match std::fs::metadata(path) {
            Err(_) if is_pattern(path) => return self.add_matching(path, listing),
            found => found.map_err(Error::io(path))?,
        };
        if !found.is_dir() {
            listing.files.push(self.input_file(path)?);
            return Ok(());
        }
        let looked_for = || match self.choice.include {
            Some(globs) => globs.join(", "),
            None => "files such as .txt, .md, .py, .jsonl or .csv, also as .gz".to_string(),
        };
        let wanted = |path: &Path, below: &Path| match &self.patterns {
            Some(patterns) => patterns.match_name_or(below),
            None => Format::known(path).is_some(),
        };
        let before = listing.files.len();
        let found = self.walk(path, false, &wanted, listing)?;
        if self.patterns.is_none() && self.choice.format.is_none() {
            leave_out_data(before, listing);
        }
        if !found {
            return Err(Error::Invalid(format!("{}: no text files found in this folder (looked for {})", path.display(), looked_for())));
        }
        Ok(())
    }

    fn add_matching(&self, pattern: &Path, listing: &mut Listing) -> Result<()> {
        let (folder, below) = fixed_folder(pattern);
        let patterns = Patterns::of_paths(&below)?;
        let hidden = below.split('/').any(|part| part.starts_with('.'));
        if !folder.as_os_str().is_empty() {
            std::fs::metadata(&folder).map_err(Error::io(&folder))?;
        }
        if !self.walk(&folder, hidden, &|_, below| patterns.match_path(below), listing)? {
            return Err(Error::Invalid(format!("{}: no file to read matches this pattern", pattern.display())));
        }
        Ok(())
    }

    /// Adds the wanted files below a folder; whether there were any to read.
    fn walk(&self, folder: &Path, hidden: bool, wanted: &dyn Fn(&Path, &Path) -> bool, listing: &mut Listing) -> Result<bool> {
        let wanted = |path: &Path| path.strip_prefix(folder).is_ok_and(|below| wanted(path, below));
        if self.exclude.is_some() && folder.canonicalize().ok() == self.exclude {
            return Err(Error::Invalid(format!("{}: this folder is written to; read from another", folder.display())));
        }
        let before = listing.files.len();
        let visible = |entry: &DirEntry| {
            entry.depth() == 0 || ((hidden || !entry.file_name().as_encoded_bytes().starts_with(b".")) && !self.is_excluded(entry))
        };
        // The current folder is walked as `.` but its files are named without that.
        let root = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        for entry in WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter().filter_entry(visible) {
            let entry = match entry {
                Err(error) if error.depth() > 0 && is_passed_over(&error, hidden, &wanted) => continue,
                entry => entry.map_err(|e| walk_error(folder, e))?,
            };
            let path = if root == folder { entry.path() } else { entry.path().strip_prefix(root).unwrap_or(entry.path()) };
            if entry.file_type().is_dir() || !wanted(path) {
                continue;
            }
            let file = self.input_file(path)?;
            match (file.format == Format::Text).then(|| probe(path)).transpose()?.flatten() {
                Some(at) => listing.skipped.push((file.path, format!("a binary file (zero byte at offset {at})"))),
                None => listing.files.push(file),
            }
        }
        Ok(listing.files.len() > before)
    }

    fn is_excluded(&self, entry: &DirEntry) -> bool {
        self.exclude.is_some() && entry.file_type().is_dir() && entry.path().canonicalize().ok() == self.exclude
    }

    fn input_file(&self, path: &Path) -> Result<InputFile> {
        let found = std::fs::metadata(path).map_err(Error::io(path))?;
        if !found.is_file() {
            return Err(Error::Invalid(format!("{}: not a regular file; give it on standard input with -", path.display())));
        }
        let format = self.choice.format.unwrap_or_else(|| Format::of(path));
        Ok(InputFile { path: path.to_path_buf(), bytes: found.len(), format })
    }
}

/// Leaves out what is no text of the files from `first` on, if some are text: settings of programs and tables lie beside text
/// that are no part of it.
fn leave_out_data(first: usize, listing: &mut Listing) {
    let found = listing.files.split_off(first);
    let has_text = found.iter().any(|file| file.format == Format::Text);
    let (kept, data) = found.into_iter().partition(|file| !has_text || file.format == Format::Text);
    listing.files.extend::<Vec<_>>(kept);
    let why = |file: InputFile| (file.path, format!("{} in a folder of text; name it, or say --include", file.format.name()));
    listing.skipped.extend::<Vec<_>>(data.into_iter().map(why).collect());
}

/// Where a zero byte shows that a file is no text. A packed one is not looked into.
fn probe(path: &Path) -> Result<Option<usize>> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    file.take(PROBE_BYTES).read_to_end(&mut head).map_err(Error::io(path))?;
    Ok(if is_packed(&head) { None } else { binary_at(&head) })
}

/// Whether what cannot be read is a hidden name, or a link to nothing whose name is not looked for.
fn is_passed_over(error: &walkdir::Error, hidden: bool, wanted: &dyn Fn(&Path) -> bool) -> bool {
    let Some(path) = error.path() else { return false };
    let leads_nowhere = error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    (is_hidden && !hidden) || (leads_nowhere && !wanted(path))
}

fn walk_error(root: &Path, error: walkdir::Error) -> Error {
    let path = error.path().unwrap_or(root).to_path_buf();
    if error.loop_ancestor().is_some() {
        return Error::Invalid(format!("{}: a link back to a folder that holds it", path.display()));
    }
    let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("cannot be read"));
    Error::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(root: &Path, choice: &Choice) -> Result<Vec<String>> {
        Ok(names(root, &list_files(&[root.to_path_buf()], choice)?))
    }

    fn names(root: &Path, listing: &Listing) -> Vec<String> {
        listing.files.iter().map(|f| f.path.strip_prefix(root).unwrap().to_string_lossy().into_owned()).collect()
    }

    fn include(globs: &[&str]) -> Vec<String> {
        globs.iter().map(ToString::to_string).collect()
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a/z.md", "a/y.PY", "a.txt", "picture.png", ".git/x.txt", "c/notes.log"] {
            write(root.path(), name, name.as_bytes());
        }
        root
    }

    fn write(root: &Path, name: &str, bytes: &[u8]) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_folder_gives_its_files_in_the_order_of_their_names() {
        let root = tree();
        assert_eq!(list(root.path(), &Choice::default()).unwrap(), ["a/y.PY", "a/z.md", "a.txt", "b.txt"]);
        write(root.path(), "a/d.jsonl.gz", b"");
        write(root.path(), "e.csv", b"a,b");
        let listing = list_files(&[root.path().to_path_buf()], &Choice::default()).unwrap();
        assert_eq!(names(root.path(), &listing), ["a/y.PY", "a/z.md", "a.txt", "b.txt"]);
        let skipped: Vec<_> = listing.skipped.iter().map(|(_, why)| &**why).collect();
        assert_eq!(skipped, ["jsonl in a folder of text; name it, or say --include", "csv in a folder of text; name it, or say --include"]);
        for name in ["a/y.PY", "a/z.md", "a.txt", "b.txt"] {
            std::fs::remove_file(root.path().join(name)).unwrap();
        }
        assert_eq!(list(root.path(), &Choice::default()).unwrap(), ["a/d.jsonl.gz", "e.csv"]);
    }

    #[test]
    fn globs_choose_by_name_or_by_path() {
        let globs = include(&["*.log", "a/*.md"]);
        assert_eq!(list(tree().path(), &Choice { include: Some(&globs), ..Choice::default() }).unwrap(), ["a/z.md", "c/notes.log"]);
    }

    #[test]
    fn a_path_may_be_a_glob_or_a_list() {
        let root = tree();
        let found = |path: PathBuf| list_files(&[path], &Choice::default()).map(|listing| names(root.path(), &listing));
        assert_eq!(found(root.path().join("*.txt")).unwrap(), ["a.txt", "b.txt"]);
        assert_eq!(found(root.path().join("**/*.{md,log}")).unwrap(), ["a/z.md", "c/notes.log"]);
        assert_eq!(found(root.path().join(".g*/*")).unwrap(), [".git/x.txt"]);
        assert!(found(root.path().join("*.rst")).unwrap_err().to_string().ends_with("*.rst: no file to read matches this pattern"));
        write(root.path(), "a[1].txt", b"");
        assert_eq!(found(root.path().join("a[1].txt")).unwrap(), ["a[1].txt"]);
        let lines = format!("# books\n\n{0}/b.txt\r\n{0}/a\n", root.path().display());
        write(root.path(), "list.txt", lines.as_bytes());
        assert_eq!(found(format!("@{}/list.txt", root.path().display()).into()).unwrap(), ["b.txt", "a/y.PY", "a/z.md"]);
    }

    #[test]
    fn binary_files_are_left_out_of_folders_but_utf_16_is_not() {
        let root = tree();
        write(root.path(), "bad.txt", b"ab\0c");
        write(root.path(), "wide.txt", b"\xff\xfea\0");
        write(root.path(), "packed.txt.gz", b"\x1f\x8b\x08\0\0");
        let listing = list_files(&[root.path().to_path_buf()], &Choice::default()).unwrap();
        assert_eq!(names(root.path(), &listing), ["a/y.PY", "a/z.md", "a.txt", "b.txt", "packed.txt.gz", "wide.txt"]);
        assert_eq!(listing.skipped, [(root.path().join("bad.txt"), "a binary file (zero byte at offset 2)".to_string())]);
        assert_eq!(list_files(&[root.path().join("bad.txt")], &Choice::default()).unwrap().files.len(), 1);
    }

    #[test]
    fn the_folder_written_to_is_passed_over() {
        let root = tree();
        let out = root.path().join("a");
        let choice = Choice { exclude: Some(&out), format: Some(Format::Jsonl), ..Choice::default() };
        let listing = list_files(&[root.path().to_path_buf()], &choice).unwrap();
        let formats: Vec<_> = listing.files.iter().map(|file| (file.path.file_name().unwrap().to_str().unwrap(), file.format)).collect();
        assert_eq!(formats, [("a.txt", Format::Jsonl), ("b.txt", Format::Jsonl)]);
        assert!(list(&out, &choice).unwrap_err().to_string().ends_with("a: this folder is written to; read from another"));
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing_are_passed_over_unless_their_names_are_looked_for() {
        let root = tree();
        for name in [".#a.txt", "b.png"] {
            std::os::unix::fs::symlink("nowhere", root.path().join(name)).unwrap();
        }
        assert_eq!(list(root.path(), &Choice::default()).unwrap(), ["a/y.PY", "a/z.md", "a.txt", "b.txt"]);
        std::os::unix::fs::symlink("nowhere", root.path().join("c.txt")).unwrap();
        assert!(list(root.path(), &Choice::default()).unwrap_err().to_string().contains("c.txt: No such file"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket.txt");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let message = list_files(&[path], &Choice::default()).unwrap_err().to_string();
        assert!(message.ends_with("socket.txt: not a regular file; give it on standard input with -"), "{message}");
        assert!(list(root.path(), &Choice::default()).unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn faults_are_named() {
        let root = tree();
        let globs = include(&["*.rst"]);
        let message = list(root.path(), &Choice { include: Some(&globs), ..Choice::default() }).unwrap_err().to_string();
        assert!(message.ends_with("no text files found in this folder (looked for *.rst)"), "{message}");
        let missing = list_files(&[root.path().join("missing.txt")], &Choice::default()).unwrap_err().to_string();
        assert!(missing.contains("missing.txt: No such file"), "{missing}");
        let globs = include(&["[a"]);
        let message = list(root.path(), &Choice { include: Some(&globs), ..Choice::default() }).unwrap_err().to_string();
        assert!(message.starts_with("include pattern \"[a\": "), "{message}");
    }
}
