//! The provider presets: YAML data, embedded. Nothing here or elsewhere in Rust knows what a provider does.

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../providers/", $name, ".yaml")))),*]
    };
}

/// The built-in presets: (name, YAML), by name.
pub const BUILT_IN: &[(&str, &str)] = embedded![
    "ably",
    "adyen-platform",
    "affirm",
    "aftership",
    "airtable",
    "airwallex",
    "anthropic",
    "ashby",
    "attio",
    "authorize-net",
    "autodesk",
    "bigcommerce",
    "bitbucket",
    "bitbucket-data-center",
    "bolt",
    "box",
    "brex",
    "buildkite",
    "cal-com",
    "calendly",
    "chargify",
    "checkout-com",
    "checkr",
    "circleci",
    "clerk",
    "clickup",
    "cloudflare-stream",
    "cloudinary",
    "coinbase-cdp",
    "coinbase-commerce",
    "commerce-layer",
    "cronofy",
    "cursor",
    "customer-io",
    "deel",
    "discord",
    "docusign",
    "doppler",
    "dub",
    "dwolla",
    "easypost",
    "elevenlabs",
    "etsy",
    "figma",
    "finch",
    "flutterwave-v3",
    "flutterwave-v4",
    "fourthwall",
    "front",
    "gemini",
    "github",
    "gitlab",
    "gocardless",
    "heroku",
    "hubspot-v1",
    "hubspot-v2",
    "incident-io",
    "increase",
    "intercom",
    "jira",
    "klaviyo",
    "launchdarkly",
    "lemon-squeezy",
    "line",
    "linear",
    "linkedin",
    "lithic",
    "liveblocks",
    "lob",
    "loops",
    "mailersend",
    "mailgun",
    "mailtrap",
    "merge",
    "modern-treasury",
    "mollie",
    "mongodb-atlas",
    "ms-teams",
    "mux",
    "nylas",
    "onfleet",
    "openai",
    "oracle-commerce",
    "paddle",
    "pagerduty",
    "paystack",
    "polar",
    "pusher",
    "qonto",
    "razorpay",
    "recurly",
    "render",
    "replicate",
    "resend",
    "retell",
    "sanity",
    "segment",
    "sendbird",
    "sendgrid",
    "sentry",
    "shippo",
    "shopify",
    "slack",
    "square",
    "squarespace",
    "standard-webhooks",
    "stripe",
    "stytch",
    "supabase",
    "svix",
    "tally",
    "telegram",
    "telnyx",
    "tiktok",
    "trello",
    "twitch",
    "typeform",
    "vanta",
    "vercel",
    "webflow",
    "wise",
    "woocommerce",
    "workos",
    "x-twitter",
    "xero",
    "zendesk",
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
