//! Reads a configuration folder within bounds: depth, number and size of files, links that turn in circles.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{FileKind, Files, Location};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, Span};

const FILE_BYTES_MAX: u64 = 1 << 20;
pub(super) const ATTACHMENT_BYTES_MAX: u64 = 16 << 20;
const DEPTH_MAX: usize = 16;
const ENTRIES_MAX: usize = 20_000;

/// The folders of a configuration and whether those beneath them are read too.
const FOLDERS: [(&str, bool); 3] = [("routes", true), ("sources", false), ("providers", false)];

pub(super) fn read(location: &Location) -> (Files, Vec<Diagnostic>) {
    let (root, server) = match location {
        Location::Folder(folder) => (folder.clone(), None),
        Location::File(file) => {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            (folder.unwrap_or(Path::new(".")).to_owned(), file.file_name())
        }
    };
    let mut files = Files { on_disk: true, ..Files::new(root) };
    let mut reader = Reader {
        files: &mut files,
        diagnostics: Vec::new(),
        entries: 0,
        seen: BTreeSet::new(),
        routes: false,
    };
    reader.folder(server.map(|name| name.to_string_lossy().into_owned()));
    let diagnostics = reader.diagnostics;
    (files, diagnostics)
}

/// A file's text, or why there is none, in words that follow "cannot read …: ".
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    // A pipe or a device could keep the reader waiting for ever.
    let metadata = fs::metadata(path).map_err(|error| reason(&error))?;
    if !metadata.is_file() {
        return Err(
            if metadata.is_dir() { "it is a folder" } else { "it is no ordinary file" }.to_owned()
        );
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| reason(&error))?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {} KiB", bytes_max / 1024));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err("it is saved as UTF-16; save it as UTF-8".to_owned());
    }
    if bytes.starts_with(&[0xEF, 0xBB, 0xBF]) {
        return Err("it begins with a byte order mark; save it as UTF-8 without one (\"UTF-8\", not \"UTF-8 with BOM\")".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        format!("it is not UTF-8 text (line {line}); save it as UTF-8")
    })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

struct Reader<'f> {
    files: &'f mut Files,
    diagnostics: Vec<Diagnostic>,
    entries: usize,
    /// Folders that were entered, by their real path.
    seen: BTreeSet<PathBuf>,
    routes: bool,
}

impl Reader<'_> {
    fn folder(&mut self, server: Option<String>) {
        if !self.files.root.is_dir() {
            let message = format!("there is no folder `{}`", self.files.root.display());
            self.report(Code::UnreadableFile, ".", message).help =
                Some("choose one by `-C DIR`".to_owned());
            return;
        }
        match server {
            Some(name) => self.file(FileKind::Server, name),
            None if self.files.root.join("router.yaml").symlink_metadata().is_ok() => {
                self.file(FileKind::Server, "router.yaml".to_owned());
            }
            None => self.misnamed("router.yml", "router.yaml"),
        }
        for (name, deep) in FOLDERS {
            self.walk(name.to_owned(), deep, 0);
        }
        if !self.routes {
            let shown = self.files.root.canonicalize().unwrap_or_else(|_| self.files.root.clone());
            let message = format!("no routes in `{}`", shown.display());
            self.report(Code::NoRoutes, "routes/", message).help = Some(
                "a route is a file `routes/NAME.yaml`; another folder is chosen by `-C DIR`"
                    .to_owned(),
            );
        }
    }

    fn walk(&mut self, name: String, deep: bool, depth: usize) {
        let path = self.files.root.join(&name);
        let listed = match fs::read_dir(&path) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth == 0 => return,
            Err(error) => {
                self.report(
                    Code::UnreadableFile,
                    &name,
                    format!("cannot read the folder: {}", reason(&error)),
                );
                return;
            }
        };
        if depth > DEPTH_MAX {
            self.report(
                Code::UnreadableFile,
                &name,
                format!("folders are nested deeper than {DEPTH_MAX} levels"),
            );
            return;
        }
        // A link to a folder that was read already adds nothing, and a circle of them never ends.
        if let Ok(real) = path.canonicalize()
            && !self.seen.insert(real)
        {
            return;
        }
        let mut names = Vec::new();
        for entry in listed {
            match entry {
                Ok(entry) => match entry.file_name().into_string() {
                    Ok(entry) => names.push(entry),
                    Err(entry) => {
                        let shown = format!("{name}/{}", entry.to_string_lossy());
                        self.report(Code::UnreadableFile, &shown, "the file's name is not UTF-8");
                    }
                },
                Err(error) => {
                    self.report(
                        Code::UnreadableFile,
                        &name,
                        format!("cannot read the folder: {}", reason(&error)),
                    );
                    break;
                }
            }
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                let message = format!("the configuration has more than {ENTRIES_MAX} files");
                self.report(Code::UnreadableFile, &name, message);
                return;
            }
        }
        names.sort();
        for entry in names {
            // Editors and version control keep their own files behind a dot.
            if entry.starts_with('.') {
                continue;
            }
            let entry = format!("{name}/{entry}");
            if self.files.root.join(&entry).is_dir() {
                if deep {
                    self.walk(entry, deep, depth + 1);
                }
                continue;
            }
            if let Some(stem) = entry.strip_suffix(".yml") {
                let right = format!("{stem}.yaml");
                self.misnamed(&entry, &right);
                continue;
            }
            let kind = FileKind::of(&entry);
            if kind != FileKind::Attachment {
                self.file(kind, entry);
            }
        }
    }

    fn file(&mut self, kind: FileKind, name: String) {
        self.routes |= kind == FileKind::Route;
        match read_text(&self.files.root.join(&name), FILE_BYTES_MAX) {
            Ok(text) => {
                self.files.add_as(kind, name, text);
            }
            Err(reason) => {
                self.report(Code::UnreadableFile, &name, format!("cannot read the file: {reason}"));
            }
        }
    }

    /// A file that the user most likely means, under a name that is not read.
    fn misnamed(&mut self, name: &str, right: &str) {
        if self.files.root.join(name).symlink_metadata().is_ok() {
            let help = format!("rename it to `{right}`");
            self.report(
                Code::IgnoredFile,
                name,
                "this file is not read: only names that end in `.yaml` are",
            )
            .help = Some(help);
        }
    }

    /// A finding about a whole file, which stands in the list without a text, so that no stage after this one reads it.
    fn report(&mut self, code: Code, name: &str, message: impl Into<String>) -> &mut Diagnostic {
        let file = self.files.add_as(FileKind::Attachment, name, "");
        self.diagnostics.push(Diagnostic::new(code, Span::new(file, 0..0), message));
        self.diagnostics.last_mut().expect("it was pushed just now")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(files: &[(&str, &[u8])]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, bytes) in files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            Self(folder)
        }

        /// The names that are read, and what is said of the others.
        fn check(&self, names: &[&str], said: &[&str]) -> Files {
            let (files, diagnostics) = read(&Location::Folder(self.0.path().to_owned()));
            let kinds = [FileKind::Server, FileKind::Route, FileKind::Source, FileKind::Provider];
            let found: Vec<_> = kinds
                .iter()
                .flat_map(|kind| files.of(*kind))
                .map(|id| files.get(id).name.clone())
                .collect();
            assert_eq!(found, names);
            let messages: Vec<_> = diagnostics
                .iter()
                .map(|diagnostic| {
                    format!("{}: {}", files.get(diagnostic.span.file).name, diagnostic.message)
                })
                .collect();
            assert_eq!(messages.len(), said.len(), "{messages:?}");
            for (message, part) in messages.iter().zip(said) {
                assert!(message.contains(part), "{message} holds no {part}");
            }
            files
        }
    }

    #[test]
    fn reads_each_kind_and_leaves_the_rest() {
        let folder = Folder::new(&[
            ("router.yaml", b"listen: 0.0.0.0:80"),
            ("routes/a.yaml", b"route: a"),
            ("routes/eu/b.yaml", b"route: b"),
            ("routes/a.test.yaml", b"route: a"),
            ("routes/.hidden.yaml", b""),
            ("routes/notes.md", b""),
            ("sources/s.yaml", b"source: s"),
            ("providers/p.yaml", b"provider: p"),
            ("skus.csv", b"a,b"),
        ]);
        let mut files = folder.check(
            &[
                "router.yaml",
                "routes/a.yaml",
                "routes/eu/b.yaml",
                "sources/s.yaml",
                "providers/p.yaml",
            ],
            &[],
        );
        let route = files.by_name("routes/a.yaml").unwrap();
        let map = files.attach(route, "../skus.csv").unwrap();
        assert_eq!(&*files.get(map).text, "a,b");
        assert_eq!(files.attach(route, "../skus.csv"), Ok(map));
        assert_eq!(files.attach(route, "none.csv"), Err("there is no such file".to_owned()));
        assert_eq!(files.attach(route, ".."), Err("it is a folder".to_owned()));
    }

    #[test]
    fn says_what_it_cannot_read() {
        let large = vec![b'#'; FILE_BYTES_MAX as usize + 1];
        let folder = Folder::new(&[
            ("router.yml", b""),
            ("routes/a.yml", b""),
            ("routes/b.yaml", b"a: 1\nb: \xE9"),
            ("routes/c.yaml", b"\xEF\xBB\xBFa: 1"),
            ("routes/d.yaml", b"\xFF\xFEa\0"),
            ("routes/e.yaml", &large),
        ]);
        folder.check(
            &[],
            &[
                "router.yml: this file is not read",
                "routes/a.yml",
                "b.yaml: cannot read the file: it is not UTF-8 text (line 2)",
                "byte order mark",
                "UTF-16",
                "larger than 1024 KiB",
            ],
        );
        Folder::new(&[("router.yaml", b"")]).check(&["router.yaml"], &["no routes in"]);
        let (_, diagnostics) = read(&Location::Folder(folder.0.path().join("none")));
        assert!(diagnostics[0].message.contains("there is no folder"));
    }

    #[test]
    fn links_that_turn_in_circles_end() {
        let folder = Folder::new(&[("routes/a.yaml", b"route: a")]);
        let routes = folder.0.path().join("routes");
        std::os::unix::fs::symlink(&routes, routes.join("again")).unwrap();
        std::os::unix::fs::symlink("nowhere", routes.join("broken.yaml")).unwrap();
        folder.check(
            &["routes/a.yaml"],
            &["routes/broken.yaml: cannot read the file: there is no such file"],
        );
    }

    #[test]
    fn another_file_may_stand_for_the_servers() {
        let folder =
            Folder::new(&[("prod.yaml", b"a: 1"), ("router.yaml", b""), ("routes/a.yaml", b"")]);
        let (files, diagnostics) = read(&Location::File(folder.0.path().join("prod.yaml")));
        assert!(diagnostics.is_empty());
        let server: Vec<_> =
            files.of(FileKind::Server).into_iter().map(|id| files.get(id).name.clone()).collect();
        assert_eq!(server, ["prod.yaml"]);
        let (_, diagnostics) = read(&Location::File(folder.0.path().join("none.yaml")));
        assert!(diagnostics[0].message.contains("there is no such file"));
    }
}
