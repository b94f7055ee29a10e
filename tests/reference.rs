//! The pages of `docs/` that are made from the tables of keys are fresh. `UPDATE_DOCS=1 cargo test --test reference`
//! writes them anew.

use std::fs;
use std::path::Path;

use router::config::reference::{Page, keys_page};

fn fresh(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, made).expect("docs/ is there and writable");
    }
    let stands = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == made,
        "docs/{name} is stale: run `UPDATE_DOCS=1 cargo test --test reference` and look at the change"
    );
}

#[test]
fn pages_are_fresh() {
    fresh("reference/route.md", &keys_page(Page::Route));
    fresh("reference/config.md", &keys_page(Page::Config));
}
