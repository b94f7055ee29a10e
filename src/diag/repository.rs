//! The paths that a forge and its CI know: from the root of the repository, wherever in it the configuration lies.

use std::path::{Component, Path, PathBuf};

use super::FileId;
use crate::files::Files;

/// A configuration's place in its repository. Both paths are absolute and real; nothing here looks at the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    pub root: PathBuf,
    /// The configuration folder.
    pub folder: PathBuf,
}

impl Repository {
    /// The file's path from the root, with `/`; an absolute one for what lies outside the repository.
    pub fn path(&self, files: &Files, id: FileId) -> String {
        let path = plain(&self.folder.join(&files.get(id).name));
        match path.strip_prefix(&self.root) {
            Ok(inside) if inside.as_os_str().is_empty() => ".".to_owned(),
            Ok(inside) => inside.display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }
}

/// Without `.` and `..`, which a file that a route names may bring along.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_start_at_the_root() {
        let check = |folder: &str, name: &str, expected: &str| {
            let repository = Repository { root: "/repo".into(), folder: folder.into() };
            let mut files = Files::new("");
            let file = files.add(name, "");
            assert_eq!(repository.path(&files, file), expected);
        };
        check("/repo", "routes/a.yaml", "routes/a.yaml");
        check("/repo/eu", "routes/a.yaml", "eu/routes/a.yaml");
        check("/repo/eu", "../shared/skus.csv", "shared/skus.csv");
        check("/repo/eu", "/repo/keys/a.pem", "keys/a.pem");
        check("/repo/eu", "../../skus.csv", "/skus.csv");
        check("/repo/eu", "/etc/a.csv", "/etc/a.csv");
        check("/repo", ".", ".");
    }
}
