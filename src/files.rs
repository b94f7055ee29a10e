//! Names and texts of a configuration: what the loader reads, from a folder or from memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diag::FileId;

/// A text with the name that diagnostics show.
#[derive(Clone, Debug)]
pub struct SourceText {
    /// Relative to the configuration folder, with `/`.
    pub name: String,
    pub text: Arc<str>,
}

/// The files of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The configuration folder; relative paths of secrets' files and of the store start here or at their file.
    pub root: PathBuf,
    texts: Vec<SourceText>,
}

impl Files {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), texts: Vec::new() }
    }

    pub fn add(&mut self, name: impl Into<String>, text: impl Into<Arc<str>>) -> FileId {
        self.texts.push(SourceText { name: name.into(), text: text.into() });
        FileId(u32::try_from(self.texts.len() - 1).expect("fewer than four thousand million files"))
    }

    pub fn get(&self, id: FileId) -> &SourceText {
        &self.texts[id.0 as usize]
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

    /// The folder that relative paths in `id` start from.
    pub fn folder_of(&self, id: FileId) -> PathBuf {
        let folder = Path::new(&self.get(id).name).parent().unwrap_or(Path::new(""));
        self.root.join(folder)
    }
}
