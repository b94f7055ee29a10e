//! Revisions: all texts that made a route, their hash, and the way back from such a text to the route.

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::context::Checker;
use super::source::KnownSource;
use crate::config::{Route, RouteSet, shape};
use crate::diag::{FileId, Severity};
use crate::files::Files;
use crate::name::RevisionHash;

impl Checker {
    /// Of the route in `file`: that text, its shared source's, and those of the files it names. Nothing else, so that an
    /// edit elsewhere changes no revision.
    pub(super) fn revision(
        &self,
        file: FileId,
        shared: Option<&KnownSource>,
    ) -> (RevisionHash, Arc<str>) {
        let mut files = vec![file];
        files.extend(shared.map(|source| source.file));
        files.extend(&self.attached);
        let mut texts: Vec<(&str, &str)> = files
            .iter()
            .map(|file| {
                let source = self.files.get(*file);
                (source.name.as_str(), &*source.text)
            })
            .collect();
        texts.sort_unstable();
        texts.dedup();
        let files: Map<String, Json> =
            texts.into_iter().map(|(name, text)| (name.to_owned(), Json::from(text))).collect();
        let text = json!({ "route": self.files.get(file).name, "files": files }).to_string();
        let hash = hex::encode(Sha256::digest(text.as_bytes()));
        (RevisionHash::new(hash), text.into())
    }
}

/// Compiles a route from its `revision_text` against the destinations of now: a delivery keeps its revision over reloads
/// and restarts. The error says what no longer fits.
pub fn compile_revision(text: &str, now: &RouteSet) -> Result<Route, String> {
    let broken = |what: &str| format!("the stored revision is no revision: {what}");
    let stored: Json = serde_json::from_str(text).map_err(|error| broken(&error.to_string()))?;
    let route_file =
        stored.get("route").and_then(Json::as_str).ok_or_else(|| broken("no `route`"))?;
    let texts =
        stored.get("files").and_then(Json::as_object).ok_or_else(|| broken("no `files`"))?;
    let mut files = Files::new(now.references.root.clone());
    for (name, text) in texts {
        files.add(name.as_str(), text.as_str().ok_or_else(|| broken("a file is no text"))?);
    }
    let file = files.by_name(route_file).ok_or_else(|| broken("its file is missing"))?;
    let mut checker = Checker::new(files);
    checker.providers();
    let mut sources = checker.shared_sources();
    let node = checker.tree(file, &shape::route::ROUTE);
    if let Some(node) = &node {
        checker.inline_source(node, &mut sources);
    }
    // The source is taken from the running configuration; what was only its fault does not stop the delivery.
    checker.diagnostics.retain(|found| found.span.file == file);
    let destinations = now
        .destinations
        .values()
        .map(|destination| (destination.lane.as_str().to_owned(), Some(Arc::clone(destination))))
        .collect();
    let route = node.and_then(|node| checker.route(file, &node, &sources, &destinations));
    let fault = checker.diagnostics.iter().find(|found| found.severity == Severity::Error);
    match (route, fault) {
        (Some(route), None) => Ok(route),
        (_, Some(fault)) => Err(fault.message.clone()),
        (None, None) => Err(broken("it does not compile")),
    }
}
