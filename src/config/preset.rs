//! The provider presets: YAML data, embedded. Nothing here or elsewhere in Rust knows what a provider does.

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../providers/", $name, ".yaml")))),*]
    };
}

/// The built-in presets: (name, YAML), by name.
pub const BUILT_IN: &[(&str, &str)] = embedded![
    "discord",
    "github",
    "gitlab",
    "nylas",
    "shopify",
    "slack",
    "standard-webhooks",
    "stripe",
    "svix",
    "twitch",
    "x-twitter",
    "zoom",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_is_embedded_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/providers");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        let embedded: BTreeSet<String> =
            BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(files, embedded);
    }
}
