//! Which files make up a corpus.

use crate::error::{Error, Result};
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

/// Endings of the files that a folder is searched for when no pattern says otherwise.
pub(crate) const TEXT_ENDINGS: [&str; 58] = [
    "txt", "text", "md", "markdown", "rst", "tex", "org", "adoc", "py", "pyi", "rs", "c", "h", "cc", "cpp", "cxx", "hh", "hpp", "cu",
    "java", "kt", "scala", "groovy", "js", "mjs", "jsx", "ts", "tsx", "vue", "go", "rb", "php", "cs", "fs", "swift", "m", "dart", "sh",
    "bash", "zsh", "ps1", "sql", "r", "jl", "lua", "pl", "pm", "hs", "ml", "ex", "exs", "erl", "clj", "lisp", "el", "html", "css", "zig",
];

/// A file of the corpus and its size when it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// As given, or below the folder given.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
}

/// The files that `paths` name: each file itself, and all text files below each folder in the order of their names.
/// With `include`, a folder's files are those whose name, or path below the folder where the pattern holds a `/`,
/// matches one of these globs. Names that begin with a dot are passed over in folders.
///
/// # Errors
///
/// A path that is missing or no regular file, a folder without a text file, a malformed glob.
pub fn list_files(paths: &[PathBuf], include: Option<&[String]>) -> Result<Vec<TextFile>> {
    let globs = include.map(compile).transpose()?;
    let mut files = Vec::new();
    for path in paths {
        let kind = std::fs::metadata(path).map_err(Error::io(path))?;
        if !kind.is_dir() {
            files.push(text_file(path)?);
            continue;
        }
        let before = files.len();
        let visible = |entry: &DirEntry| entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".");
        for entry in WalkDir::new(path).follow_links(true).sort_by_file_name().into_iter().filter_entry(visible) {
            let entry = match entry {
                Err(error) if error.depth() > 0 && is_passed_over(path, &error, globs.as_ref()) => continue,
                entry => entry.map_err(|e| walk_error(path, e))?,
            };
            if !entry.file_type().is_dir() && wanted(path, entry.path(), globs.as_ref()) {
                files.push(text_file(entry.path())?);
            }
        }
        if files.len() == before {
            let looked_for = include.map_or("files such as .txt, .md or .py".to_string(), |globs| globs.join(", "));
            return Err(Error::Invalid(format!("{}: no text files found in this folder (looked for {looked_for})", path.display())));
        }
    }
    Ok(files)
}

fn compile(include: &[String]) -> Result<(GlobSet, GlobSet)> {
    let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
    for pattern in include {
        let glob = Glob::new(pattern).map_err(|e| Error::Invalid(format!("include pattern {pattern:?}: {}", e.kind())))?;
        if pattern.contains('/') { &mut paths } else { &mut names }.add(glob);
    }
    let built = |set: GlobSetBuilder| set.build().map_err(|e| Error::Invalid(format!("include patterns: {e}")));
    Ok((built(names)?, built(paths)?))
}

fn wanted(folder: &Path, path: &Path, globs: Option<&(GlobSet, GlobSet)>) -> bool {
    match globs {
        Some((names, paths)) => {
            path.file_name().is_some_and(|name| names.is_match(name)) || path.strip_prefix(folder).is_ok_and(|below| paths.is_match(below))
        }
        None => path.extension().and_then(|e| e.to_str()).is_some_and(|e| TEXT_ENDINGS.contains(&&*e.to_ascii_lowercase())),
    }
}

/// Whether what cannot be read is a hidden name, or a link to nothing whose name is not looked for.
fn is_passed_over(folder: &Path, error: &walkdir::Error, globs: Option<&(GlobSet, GlobSet)>) -> bool {
    let Some(path) = error.path() else { return false };
    let leads_nowhere = error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    is_hidden || (leads_nowhere && !wanted(folder, path, globs))
}

fn text_file(path: &Path) -> Result<TextFile> {
    let found = std::fs::metadata(path).map_err(Error::io(path))?;
    if !found.is_file() {
        return Err(Error::Invalid(format!("{}: not a regular file", path.display())));
    }
    Ok(TextFile { path: path.to_path_buf(), bytes: found.len() })
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

    fn names(root: &Path, include: Option<&[&str]>) -> Result<Vec<String>> {
        let include: Option<Vec<String>> = include.map(|globs| globs.iter().map(ToString::to_string).collect());
        let files = list_files(&[root.to_path_buf()], include.as_deref())?;
        Ok(files.iter().map(|f| f.path.strip_prefix(root).unwrap().to_string_lossy().into_owned()).collect())
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in ["b.txt", "a/z.md", "a/y.PY", "a.txt", "picture.png", ".git/x.txt", "c/notes.log"] {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        }
        root
    }

    #[test]
    fn a_folder_gives_its_text_files_in_the_order_of_their_names() {
        assert_eq!(names(tree().path(), None).unwrap(), ["a/y.PY", "a/z.md", "a.txt", "b.txt"]);
    }

    #[test]
    fn globs_choose_by_name_or_by_path() {
        assert_eq!(names(tree().path(), Some(&["*.log", "a/*.md"])).unwrap(), ["a/z.md", "c/notes.log"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing_are_passed_over_unless_their_names_are_looked_for() {
        let root = tree();
        for name in [".#a.txt", "b.png"] {
            std::os::unix::fs::symlink("nowhere", root.path().join(name)).unwrap();
        }
        assert_eq!(names(root.path(), None).unwrap(), ["a/y.PY", "a/z.md", "a.txt", "b.txt"]);
        std::os::unix::fs::symlink("nowhere", root.path().join("c.txt")).unwrap();
        assert!(names(root.path(), None).unwrap_err().to_string().contains("c.txt: No such file"));
    }

    #[test]
    fn faults_are_named() {
        let root = tree();
        let message = names(root.path(), Some(&["*.rst"])).unwrap_err().to_string();
        assert!(message.ends_with("no text files found in this folder (looked for *.rst)"), "{message}");
        let missing = list_files(&[root.path().join("missing.txt")], None).unwrap_err().to_string();
        assert!(missing.contains("missing.txt: No such file"), "{missing}");
        assert!(names(root.path(), Some(&["[a"])).unwrap_err().to_string().starts_with("include pattern \"[a\": "));
    }
}
