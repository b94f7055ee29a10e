//! The paths of a command line → configurations to look at, and the part of each that was asked for.

use std::path::{Path, PathBuf};

use crate::cli::Global;
use crate::diag::{Diagnostic, FileId};
use crate::files::{FileKind, Files, Location};

/// One configuration, and what of it counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) location: Location,
    /// As written, and the real path; empty: all of it.
    only: Vec<(PathBuf, PathBuf)>,
}

/// A path that holds `router.yaml` or `routes/` is a configuration; any other filters the nearest enclosing one.
pub(super) fn targets(paths: &[PathBuf], global: &Global) -> Result<Vec<Target>, String> {
    if let (None, Some(folder)) = (&global.config, &global.directory)
        && !folder.is_dir()
    {
        return Err(format!("there is no folder `{}`", folder.display()));
    }
    if let Some(file) = &global.config
        && !file.is_file()
    {
        return Err(format!("there is no file `{}`", file.display()));
    }
    let named = global.config.is_some() || global.directory.is_some();
    let mut targets: Vec<Target> = Vec::new();
    if named || paths.is_empty() {
        targets.push(Target { location: global.location(), only: Vec::new() });
    }
    for path in paths {
        let real = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("there is no file or folder `{}`", path.display())
            }
            _ => format!("cannot open `{}`: {error}", path.display()),
        })?;
        if named {
            targets[0].only.push((path.clone(), real));
        } else if is_configuration(&real) {
            targets.push(Target { location: Location::Folder(path.clone()), only: Vec::new() });
        } else {
            let Some(root) = real.ancestors().skip(1).find(|folder| is_configuration(folder))
            else {
                return Err(format!(
                    "`{}` is no configuration and stands in none: no folder above it holds `router.yaml` or `routes/`",
                    path.display()
                ));
            };
            let location = Location::Folder(near(root));
            let only = (path.clone(), real);
            match targets
                .iter_mut()
                .find(|target| target.location == location && !target.only.is_empty())
            {
                Some(target) => target.only.push(only),
                None => targets.push(Target { location, only: vec![only] }),
            }
        }
    }
    Ok(targets)
}

fn is_configuration(folder: &Path) -> bool {
    folder.join("router.yaml").is_file() || folder.join("routes").is_dir()
}

/// The folder as seen from the current one, where it is beneath it.
fn near(folder: &Path) -> PathBuf {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    match here.ok().and_then(|here| folder.strip_prefix(here).ok().map(Path::to_owned)) {
        Some(inside) if inside.as_os_str().is_empty() => PathBuf::from("."),
        Some(inside) => inside,
        None => folder.to_owned(),
    }
}

impl Target {
    /// Leaves the diagnostics of what was asked for. A path that names nothing of the configuration is an error: silence
    /// would look like health.
    pub(super) fn keep(
        &self,
        files: &Files,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Result<(), String> {
        if self.only.is_empty() {
            return Ok(());
        }
        for (written, only) in &self.only {
            let holds_any = files.iter().any(|(id, text)| {
                let said = diagnostics.iter().any(|diagnostic| diagnostic.span.file == id);
                (text.kind != FileKind::Attachment || said)
                    && real(files, &text.name).starts_with(only)
            });
            if !holds_any {
                return Err(format!(
                    "`{}` is no file of the configuration `{}`",
                    written.display(),
                    files.root.display()
                ));
            }
        }
        diagnostics.retain(|diagnostic| self.holds(files, diagnostic.span.file));
        Ok(())
    }

    /// The files that were looked at for this target: what `router check` gives an account of, file by file.
    pub(super) fn checked(&self, files: &Files) -> Vec<FileId> {
        files
            .iter()
            .filter(|(id, text)| text.kind != FileKind::Attachment && self.holds(files, *id))
            .map(|(id, _)| id)
            .collect()
    }

    fn holds(&self, files: &Files, id: FileId) -> bool {
        if self.only.is_empty() {
            return true;
        }
        let path = real(files, &files.get(id).name);
        self.only.iter().any(|(_, only)| path.starts_with(only))
    }
}

fn real(files: &Files, name: &str) -> PathBuf {
    let root = files.root.canonicalize().unwrap_or_else(|_| files.root.clone());
    let path = root.join(name);
    path.canonicalize().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Span;
    use crate::diag::code::Code;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in
            ["a/routes/x.yaml", "a/routes/eu/y.yaml", "a/notes.md", "b/router.yaml", "c/d.txt"]
        {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "route: x").unwrap();
        }
        folder
    }

    #[test]
    fn paths_are_configurations_or_filter_them() {
        let folder = folder();
        let root = folder.path().canonicalize().unwrap();
        let check = |paths: &[&str], expected: &[(&str, usize)]| {
            let paths: Vec<_> = paths.iter().map(|path| root.join(path)).collect();
            let found = targets(&paths, &Global::default()).unwrap();
            let found: Vec<_> =
                found.into_iter().map(|target| (target.location, target.only.len())).collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(path, only)| (Location::Folder(root.join(path)), *only))
                .collect();
            assert_eq!(found, expected);
        };
        check(&["a", "b"], &[("a", 0), ("b", 0)]);
        check(&["a/routes"], &[("a", 1)]);
        check(&["a/routes/x.yaml", "a/routes/eu"], &[("a", 2)]);
        let fails = |path: &str| targets(&[root.join(path)], &Global::default()).unwrap_err();
        assert!(fails("c/d.txt").contains("is no configuration"));
        assert!(fails("none").contains("there is no file or folder"));
        let nowhere = Global { directory: Some(root.join("none")), ..Global::default() };
        assert!(targets(&[], &nowhere).unwrap_err().contains("there is no folder"));
    }

    #[test]
    fn a_filter_keeps_its_own_and_must_name_something() {
        let folder = folder();
        let root = folder.path().join("a");
        let kept = |path: &str| {
            let target = &targets(&[root.join(path)], &Global::default()).unwrap()[0];
            let (files, _) = Files::read(&target.location);
            let mut diagnostics: Vec<_> = files
                .iter()
                .map(|(id, _)| Diagnostic::new(Code::UnknownKey, Span::new(id, 0..1), "x"))
                .collect();
            target.keep(&files, &mut diagnostics).map(|()| diagnostics.len())
        };
        assert_eq!(kept("routes"), Ok(2));
        assert_eq!(kept("routes/eu"), Ok(1));
        assert!(kept("notes.md").unwrap_err().contains("is no file of the configuration"));
    }
}
