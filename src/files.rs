//! Names and texts of a configuration: what the loader reads, from a folder or from memory.

mod folder;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diag::{Diagnostic, FileId, Span};

/// What the user named: `-C DIR`, `--config FILE`, or neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A configuration folder.
    Folder(PathBuf),
    /// A file that stands for `router.yaml`; its folder is the configuration folder.
    File(PathBuf),
}

/// What a file holds, by its place in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// `router.yaml`
    Server,
    /// `routes/**/*.yaml`
    Route,
    /// `sources/*.yaml`
    Source,
    /// `providers/*.yaml`
    Provider,
    /// What another file names: a map's CSV, a key.
    Attachment,
}

/// A text with the name that diagnostics show.
#[derive(Clone, Debug)]
pub struct SourceText {
    /// Relative to the configuration folder, with `/`.
    pub name: String,
    pub kind: FileKind,
    pub text: Arc<str>,
}

/// The files of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The configuration folder; relative paths of secrets' files and of the store start here or at their file.
    pub root: PathBuf,
    texts: Vec<SourceText>,
    /// Secrets that stand in the texts: excerpts do not show them.
    hidden: Vec<Span>,
    /// Whether [`Files::attach`] may read from the folder; false for texts that come from memory.
    on_disk: bool,
}

impl Files {
    /// Reads a configuration folder. Files that cannot be read are diagnostics; the others are there.
    pub fn read(location: &Location) -> (Self, Vec<Diagnostic>) {
        folder::read(location)
    }

    /// Files that only memory holds: [`Files::attach`] finds what was added and nothing else.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), texts: Vec::new(), hidden: Vec::new(), on_disk: false }
    }

    /// Adds a text; what it holds follows from its name.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> FileId {
        let name = name.into();
        let kind = FileKind::of(&name);
        self.add_as(kind, name, text)
    }

    pub fn add_as(
        &mut self,
        kind: FileKind,
        name: impl Into<String>,
        text: impl Into<Arc<str>>,
    ) -> FileId {
        self.texts.push(SourceText { name: name.into(), kind, text: text.into() });
        FileId(u32::try_from(self.texts.len() - 1).expect("fewer than four thousand million files"))
    }

    /// The file that `path`, written in `relative_to`, names; read from the folder at its first use. The error says why
    /// not, for a message ("cannot read `skus.csv`: {error}").
    pub fn attach(&mut self, relative_to: FileId, path: &str) -> Result<FileId, String> {
        let name = join(&self.get(relative_to).name, path);
        if let Some(known) = self.by_name(&name) {
            return Ok(known);
        }
        if !self.on_disk {
            return Err("it is not among the stored texts".to_owned());
        }
        let text = folder::read_text(&self.root.join(&name), folder::ATTACHMENT_BYTES_MAX)?;
        Ok(self.add_as(FileKind::Attachment, name, text))
    }

    pub fn get(&self, id: FileId) -> &SourceText {
        &self.texts[id.0 as usize]
    }

    /// What stands at `span` is a secret.
    pub fn hide(&mut self, span: Span) {
        self.hidden.push(span);
    }

    /// The text as people may see it, with every byte where it was: secrets are blotted out.
    pub fn excerpt(&self, id: FileId) -> Cow<'_, str> {
        let text = &*self.get(id).text;
        let mut shown = Cow::Borrowed(text);
        for span in self.hidden.iter().filter(|span| span.file == id) {
            let Some(secret) = text.get(span.range()) else { continue };
            let blot = |c: char| match (c, c.len_utf8()) {
                ('\n' | '\r', _) => c,
                (_, 1) => '*',
                (_, 2) => '·',
                (_, 3) => '•',
                (_, _) => '🞄',
            };
            shown
                .to_mut()
                .replace_range(span.range(), &secret.chars().map(blot).collect::<String>());
        }
        shown
    }

    pub fn by_name(&self, name: &str) -> Option<FileId> {
        let position = self.texts.iter().position(|text| text.name == name)?;
        Some(FileId(u32::try_from(position).expect("fewer than four thousand million files")))
    }

    pub fn iter(&self) -> impl Iterator<Item = (FileId, &SourceText)> {
        self.texts.iter().enumerate().map(|(index, text)| {
            (FileId(u32::try_from(index).expect("fewer than four thousand million files")), text)
        })
    }

    /// The files of one kind, ordered by name.
    pub fn of(&self, kind: FileKind) -> Vec<FileId> {
        let mut found: Vec<_> = self.iter().filter(|(_, text)| text.kind == kind).collect();
        found.sort_by(|left, right| left.1.name.cmp(&right.1.name));
        found.into_iter().map(|(id, _)| id).collect()
    }

    /// The path as the user can open it from where the command runs.
    pub fn shown(&self, id: FileId) -> String {
        let path = self.root.join(&self.get(id).name);
        path.strip_prefix(".").unwrap_or(&path).display().to_string()
    }

    /// The folder that relative paths in `id` start from.
    pub fn folder_of(&self, id: FileId) -> PathBuf {
        let folder = Path::new(&self.get(id).name).parent().unwrap_or(Path::new(""));
        self.root.join(folder)
    }
}

impl FileKind {
    fn of(name: &str) -> Self {
        let yaml = name.ends_with(".yaml");
        match name.split_once('/') {
            None if name == "router.yaml" => FileKind::Server,
            Some(("routes", rest)) if yaml && !rest.ends_with(".test.yaml") => FileKind::Route,
            Some(("sources", rest)) if yaml && !rest.contains('/') => FileKind::Source,
            Some(("providers", rest)) if yaml && !rest.contains('/') => FileKind::Provider,
            _ => FileKind::Attachment,
        }
    }
}

/// `path` as it stands in the file `name`, relative to the configuration folder, without `.` and `..` inside.
fn join(name: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_their_file() {
        let check = |name, path, expected| assert_eq!(join(name, path), expected);
        check("routes/a.yaml", "skus.csv", "routes/skus.csv");
        check("routes/eu/a.yaml", "../skus.csv", "routes/skus.csv");
        check("router.yaml", "./keys/a.pem", "keys/a.pem");
        check("routes/a.yaml", "../../shared/a.csv", "../shared/a.csv");
        check("routes/a.yaml", "/etc/a.csv", "/etc/a.csv");
    }

    #[test]
    fn memory_knows_only_what_was_added() {
        let mut files = Files::new("");
        let route = files.add("routes/a.yaml", "route: a");
        let map = files.add("routes/skus.csv", "a,b");
        assert_eq!(files.get(route).kind, FileKind::Route);
        assert_eq!(files.get(map).kind, FileKind::Attachment);
        assert_eq!(files.attach(route, "skus.csv"), Ok(map));
        assert!(files.attach(route, "../Cargo.toml").is_err());
    }

    #[test]
    fn kinds_follow_from_places() {
        let check = |name, kind| assert_eq!(FileKind::of(name), kind, "{name}");
        check("router.yaml", FileKind::Server);
        check("routes/a.yaml", FileKind::Route);
        check("routes/eu/a.yaml", FileKind::Route);
        check("routes/a.test.yaml", FileKind::Attachment);
        check("sources/a.yaml", FileKind::Source);
        check("sources/eu/a.yaml", FileKind::Attachment);
        check("providers/a.yaml", FileKind::Provider);
        check("examples/router.yaml", FileKind::Attachment);
    }
}
