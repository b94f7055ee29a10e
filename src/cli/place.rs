//! Where a store is: a folder that nobody has open, or behind a running router.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;

use super::remote::{Api, connect};
use super::running::{open_store, options};
use super::{Global, err};
use crate::store::Retention;
use crate::store::journal::{JournalOptions, JournalStore, OpenError};
use crate::world::World;

#[derive(clap::Args, Debug)]
pub(super) struct PlaceArgs {
    /// The store's folder [default: the one that the configuration names]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    store: Option<PathBuf>,
    /// The admin address of a running router, which is asked instead of the folder. A router that has the folder open is asked
    /// anyway [env: ROUTER_URL] [default: http://127.0.0.1:8081]
    #[arg(long)]
    url: Option<String>,
}

pub(super) enum Place {
    Folder(Arc<JournalStore>),
    Router(Api),
}

/// What may be in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    AStore,
    AStoreOrNothing,
}

impl PlaceArgs {
    /// Opens the folder, or turns to the router that has it open. An exit code, after saying why: neither can be.
    pub(super) async fn open(
        self,
        expect: Expect,
        global: &Global,
    ) -> anyhow::Result<Result<Place, ExitCode>> {
        if self.url.is_some() {
            return router(self.url);
        }
        let (path, options) = match self.store {
            Some(path) => (path, JournalOptions::default()),
            None => {
                let loaded = super::check::load(&global.location());
                let Some(set) = loaded.set else {
                    super::check::complain(&loaded.files, &loaded.diagnostics);
                    bail!(
                        "the configuration does not say where the store is; name its folder by --store DIR"
                    );
                };
                (set.server.store.clone(), options(&set.server))
            }
        };
        if expect == Expect::AStore && !holds_something(&path) {
            bail!(
                "there is no store in {}; name its folder by --store DIR, or a running router by --url",
                path.display()
            );
        }
        // Whoever only looks in lets nothing expire.
        let options = JournalOptions { retention: Retention::forever(), ..options };
        match open_store(path.clone(), options, &World::real()).await {
            Ok(store) => Ok(Ok(Place::Folder(store))),
            Err(error) => match error.downcast_ref::<OpenError>() {
                Some(OpenError::Locked { .. }) => {
                    err(&format!("{} is in use; asking the router that runs\n", path.display()));
                    router(None)
                }
                _ => Err(error),
            },
        }
    }
}

fn router(url: Option<String>) -> anyhow::Result<Result<Place, ExitCode>> {
    Ok(connect(url)?.map(Place::Router).ok_or(ExitCode::from(2)))
}

fn holds_something(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}
