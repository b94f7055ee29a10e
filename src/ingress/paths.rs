//! Which source a request is for: the paths of one configuration, compiled once.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::config::{Live, Route, Source};
use crate::name::SourceName;

/// The `{name}` parts of a path, decoded, in order.
type Parts = Vec<(String, String)>;

/// One configuration with its paths. A request holds one of these from its first byte to its answer.
pub(super) struct Table {
    pub(super) live: Arc<Live>,
    paths: matchit::Router<Arc<Source>>,
    routes: BTreeMap<SourceName, Vec<Arc<Route>>>,
}

impl Table {
    pub(super) fn new(live: Arc<Live>) -> Self {
        let mut paths = matchit::Router::new();
        let mut routes = BTreeMap::new();
        for source in live.set.sources.values() {
            if let Err(error) = paths.insert(source.path.clone(), source.clone()) {
                // `check` refuses paths that overlap; one that slipped through is not served, and says so.
                tracing::error!(source = %source.name, path = source.path, %error, "path not served");
            }
            let takers = live.set.routes_on(&source.name).cloned().collect();
            routes.insert(source.name.clone(), takers);
        }
        Self { live, paths, routes }
    }

    /// The source at `path`, which is as it came, and its decoded parts. Parts are split before they are decoded, so
    /// `%2F` belongs to a part. A part that is empty or not UTF-8 names nothing.
    pub(super) fn find(&self, path: &str) -> Option<(&Arc<Source>, Parts)> {
        let found = self.paths.at(path).ok()?;
        let parts = found
            .params
            .iter()
            .map(|(name, value)| {
                let value = percent_decode_str(value).decode_utf8().ok()?;
                (!value.is_empty()).then(|| (name.to_owned(), value.into_owned()))
            })
            .collect::<Option<Vec<_>>>()?;
        Some((found.value, parts))
    }

    /// The routes on a source, by name.
    pub(super) fn routes(&self, source: &SourceName) -> &[Arc<Route>] {
        self.routes.get(source).map_or(&[], Vec::as_slice)
    }
}
