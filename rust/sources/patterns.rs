//! Globs that choose files.

use crate::error::{Error, Result};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::path::{Path, PathBuf};

/// Several globs, each for names or for whole paths below a folder.
pub(super) struct Patterns {
    names: GlobSet,
    paths: GlobSet,
}

impl Patterns {
    /// Globs that hold a `/` are for paths, in which `*` may run over several folders; the others are for names.
    pub(super) fn new(globs: &[String]) -> Result<Self> {
        let (paths, names) = globs.iter().partition::<Vec<&String>, _>(|glob| glob.contains('/'));
        Ok(Patterns { names: compile(&names, "include pattern", false)?, paths: compile(&paths, "include pattern", false)? })
    }

    /// One glob for paths, in which only `**` runs over several folders.
    pub(super) fn of_paths(glob: &str) -> Result<Self> {
        Ok(Patterns { names: GlobSet::empty(), paths: compile(&[&glob.to_string()], "pattern", true)? })
    }

    pub(super) fn match_name_or(&self, below: &Path) -> bool {
        below.file_name().is_some_and(|name| self.names.is_match(name)) || self.match_path(below)
    }

    pub(super) fn match_path(&self, below: &Path) -> bool {
        self.paths.is_match(below)
    }
}

fn compile(globs: &[&String], what: &str, literal_separator: bool) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let built = GlobBuilder::new(glob).literal_separator(literal_separator).build();
        set.add(built.map_err(|e| Error::Invalid(format!("{what} {glob:?}: {}", e.kind())))?);
    }
    set.build().map_err(|e| Error::Invalid(format!("{what}s: {e}")))
}

/// Whether a path holds what only a glob does.
pub(super) fn is_pattern(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.contains(['*', '?', '[', '{']))
}

/// The longest folder of a glob that is none itself, and the rest.
pub(super) fn fixed_folder(pattern: &Path) -> (PathBuf, String) {
    let mut folder = PathBuf::new();
    let mut parts = pattern.components().peekable();
    while let Some(part) = parts.next_if(|part| !is_pattern(Path::new(part))) {
        folder.push(part);
    }
    let rest: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy()).collect();
    (folder, rest.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_folder_ends_before_the_first_sign() {
        for (pattern, folder, rest) in
            [("a/b/*.txt", "a/b", "*.txt"), ("*", "", "*"), ("/a/x?/c", "/a", "x?/c"), ("../{a,b}/c", "..", "{a,b}/c")]
        {
            assert_eq!(fixed_folder(Path::new(pattern)), (PathBuf::from(folder), rest.to_string()));
        }
    }

    #[test]
    fn a_star_stays_in_its_folder_and_two_do_not() {
        let matches = |glob: &str, path: &str| Patterns::of_paths(glob).unwrap().match_path(Path::new(path));
        assert!(matches("*.txt", "a.txt") && !matches("*.txt", "b/a.txt"));
        assert!(matches("**/*.txt", "a.txt") && matches("**/*.txt", "b/c/a.txt") && matches("**", "b/c"));
    }
}
