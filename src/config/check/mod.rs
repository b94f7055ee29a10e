//! The one loader: texts → checked and compiled [`RouteSet`]. `check`, `serve`, `try`, `send` and `demo` all enter
//! here. It reports every problem in one run and reads no secret.
//!
//! Each file passes the tables of [`crate::config::shape`] first, then the rules here, one file a family. A rule reads
//! what has the right shape and is silent about the rest, which was reported: one mistake, one message. Whoever answers
//! `None` has reported why.

mod body;
mod call;
mod condition;
mod context;
mod destination;
mod extraction;
mod handshake;
mod jwt;
mod key;
mod needs;
mod provider;
mod revision;
mod route;
mod scheme;
mod secret;
mod server;
mod settings;
mod signing;
mod source;
mod step;
mod templates;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use context::Checker;

use crate::config::shape::Mapping;
use crate::config::{Route, RouteSet, shape};
use crate::diag::code::Code;
use crate::diag::{Diagnostic, FileId, Severity};
use crate::files::{FileKind, Files};
use crate::syntax::{self, Node};

pub use revision::compile_revision;

/// What one load made.
#[derive(Debug)]
pub struct Loaded {
    /// The texts, attached ones too, for the places of the diagnostics.
    pub files: Files,
    /// `None` if any diagnostic is an error.
    pub set: Option<RouteSet>,
    /// In the order of files and places.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks and compiles a configuration.
pub fn load(files: Files) -> Loaded {
    let mut checker = Checker::new(files);
    let server_file = checker.files.of(FileKind::Server).first().copied();
    let server_node = server_file.and_then(|file| checker.tree(file, &shape::server::CONFIG));
    let (server, destinations) = checker.server(server_node.as_ref());
    checker.providers();
    let mut sources = checker.shared_sources();
    let routes = checker.routes(&mut sources, &destinations);
    checker.paths(&sources);
    checker.untaken_presets();

    let Checker { files, mut diagnostics, references, .. } = checker;
    diagnostics.sort_by_key(|diagnostic| (diagnostic.span.file, diagnostic.span.start));
    let clean = diagnostics.iter().all(|diagnostic| diagnostic.severity != Severity::Error);
    let set = server.filter(|_| clean).map(|server| RouteSet {
        server,
        sources: sources
            .into_values()
            .filter_map(|known| known.source)
            .map(|source| (source.name.clone(), source))
            .collect(),
        routes,
        destinations: destinations
            .into_values()
            .flatten()
            .map(|it| (it.lane.clone(), it))
            .collect(),
        references,
    });
    Loaded { files, set, diagnostics }
}

impl Checker {
    /// The tree of a file that is a mapping; its form is reported against the table.
    fn tree(&mut self, file: FileId, table: &'static Mapping) -> Option<Node> {
        let text = Arc::clone(&self.files.get(file).text);
        let parsed = syntax::parse(file, &text);
        let broken = parsed.diagnostics.iter().any(|found| found.severity == Severity::Error);
        self.diagnostics.extend(parsed.diagnostics);
        let node = parsed.node?;
        if node.is_null() && broken {
            return None;
        }
        if node.is_null() && !table.keys.iter().any(|key| key.required) {
            return None;
        }
        if node.is_null() {
            let required: Vec<&str> =
                table.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
            self.error(
                Code::MissingKey,
                node.span,
                format!("the file is empty: {} needs keys", table.name),
                format!("begin with {}, or remove the file", shape::check::listed(&required)),
            );
            return None;
        }
        shape::check::check(
            &node,
            &shape::Shape::Mapping(table),
            "the file",
            &mut self.diagnostics,
        );
        node.as_map().is_some().then_some(node)
    }

    /// All routes, by name, and their inline sources.
    fn routes(
        &mut self,
        sources: &mut source::Known,
        destinations: &destination::Known,
    ) -> BTreeMap<crate::name::RouteName, Arc<Route>> {
        let mut routes = BTreeMap::new();
        let mut places: BTreeMap<String, crate::diag::Span> = BTreeMap::new();
        let mut trees = Vec::new();
        for file in self.files.of(FileKind::Route) {
            let Some(node) = self.tree(file, &shape::route::ROUTE) else { continue };
            if let Some((name, span)) = context::name(&node, "route") {
                if let Some(first) = places.get(&name) {
                    self.push(
                        Diagnostic::new(
                            Code::DuplicateName,
                            span,
                            format!("a second route is called `{name}`"),
                        )
                        .help("give each route a name of its own")
                        .related(*first, "the first is here"),
                    );
                    continue;
                }
                places.insert(name, span);
            }
            self.inline_source(&node, sources);
            trees.push((file, node));
        }
        for (file, node) in trees {
            if let Some(route) = self.route(file, &node, sources, destinations) {
                routes.insert(route.name.clone(), Arc::new(route));
            }
        }
        routes
    }
}
