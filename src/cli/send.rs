//! `router send`: signs a sample with the route's own scheme and POSTs it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::sample::{self, SampleArgs};
use super::{Global, check, err, out};
use crate::config::resolve::{Process, resolve};
use crate::secret::{SecretValue, Vault};
use crate::simulate::provider::{Notification, Provider, SendError, Signed};
use crate::verify::Keys;
use crate::verify::scheme::Scheme;
use crate::verify::sign::SignError;
use crate::world::World;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    pub sample: SampleArgs,
    /// Where to POST [default: the source's path at the `listen` address of router.yaml, on this machine]
    #[arg(long, value_name = "URL")]
    pub to: Option<Url>,
    /// Sends the very same request N times more
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub duplicate: u32,
    /// Signs something else, so that the router must refuse it (401)
    #[arg(long)]
    pub bad_signature: bool,
    /// Signs with the secret at this place of a list, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub secret: usize,
    /// Signs with this private key (PKCS#8 in PEM), where the provider signs with one and the source has its public key; or with the secret in this file, where the source captured it
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = check::load(&global.location());
    let Some(set) = loaded.set else {
        check::complain(&loaded.files, &loaded.diagnostics);
        return Ok(ExitCode::from(1));
    };
    let world = World::real();
    let (route, source) = sample::find(&set, &args.sample.route)?;
    let sample = sample::compose(&args.sample, &loaded.files.root, route, source, &world)?;
    // Secrets of other routes are not needed here; one of this route that is missing is named by the signing.
    let (resolved, _unset) = resolve(&set, &Process);
    let sender = sender(resolved.vault, &source.verify.scheme, args.key.as_deref())?;
    let to = match args.to {
        Some(to) => to,
        None => Url::parse(&format!("http://{}{}", reachable(set.server.listen), sample.target))
            .context("the listen address makes no URL")?,
    };
    let public_url = match (&source.public_url, &set.server.public_url) {
        // It is the whole URL; the query is what this sample has.
        (Some(url), _) => {
            let mut url = url.clone();
            if url.query().is_none() {
                url.set_query(sample.target.split_once('?').map(|(_, query)| query));
            }
            url
        }
        (None, Some(base)) => {
            let (path, query) = match sample.target.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (sample.target.as_str(), None),
            };
            let mut url = base.clone();
            url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
            url.set_query(query);
            url
        }
        (None, None) => to.clone(),
    };
    let provider = Provider {
        scheme: &source.verify.scheme,
        keys: Keys {
            private: sender.private.as_ref(),
            captured: &sender.captured,
            ..Keys::of(&sender.vault)
        },
        body: source.body.as_ref(),
        public_url,
        to,
        clock: Arc::clone(&world.clock),
    };
    let mut signed = match provider.sign(&sample.notification, args.secret) {
        Err(SendError::Sign(SignError::NoSuchSecret(_)))
            if source.verify.scheme.uses_captured() =>
        {
            anyhow::bail!(
                "the router gives nobody what a handshake brought, so nothing is signed with it here: give the one that you sent to be captured by `--key FILE`, or put a secret of your own beside it, `secret: [ {{ captured: true }}, {{ env: NAME }} ]`"
            )
        }
        signed => signed?,
    };
    if args.bad_signature {
        spoil(&provider, &sample.notification, args.secret, &mut signed)?;
    }

    let refused = source.respond.unverified.as_u16();
    let mut as_meant = true;
    for number in 1..=args.duplicate.saturating_add(1) {
        let start = world.clock.monotonic();
        let answer = signed.send().await?;
        let took_ms = world.clock.monotonic().saturating_sub(start).as_millis();
        let word = http::StatusCode::from_u16(answer.status)
            .ok()
            .and_then(|status| status.canonical_reason());
        out(&format!("{number}  {} {}  {took_ms} ms\n", answer.status, word.unwrap_or_default()));
        if !answer.body.is_empty() {
            let body = String::from_utf8_lossy(&answer.body);
            out(&format!("   {}\n", body.chars().take(500).collect::<String>().escape_debug()));
        }
        as_meant &= match args.bad_signature {
            true => answer.status == refused,
            false => (200..300).contains(&answer.status),
        };
    }
    if !as_meant {
        err(&match args.bad_signature {
            true => {
                format!("error: a request with a bad signature was not refused with {refused}\n")
            }
            false => {
                "error: not accepted; the router's log and `router_requests_rejected_total` in /metrics say why\n"
                    .to_owned()
            }
        });
    }
    Ok(ExitCode::from(u8::from(!as_meant)))
}

/// What the sender has beside the configuration's secrets.
struct Sender {
    /// With the private key in the place of the public one.
    vault: Vault,
    private: Option<SecretValue>,
    captured: Vec<SecretValue>,
}

fn sender(mut vault: Vault, scheme: &Scheme, key: Option<&Path>) -> anyhow::Result<Sender> {
    let (public, fetched) = (scheme.public_keys(), scheme.fetched_key());
    let Some(path) = key else {
        anyhow::ensure!(
            public.is_empty() && fetched.is_none(),
            "the provider signs with a private key that only it has: make a pair of your own (`openssl genpkey -algorithm ed25519 -out test.pem`, for ECDSA and RSA accordingly), give the source its public key (`openssl pkey -in test.pem -pubout`; in the place of fetched keys as `key: {{ file: … }}`), and sign with `--key test.pem`"
        );
        return Ok(Sender { vault, private: None, captured: Vec::new() });
    };
    anyhow::ensure!(
        !public.is_empty() || fetched.is_some() || scheme.uses_captured(),
        "the source has no public key and captures no secret, so nothing is signed with --key: leave it out"
    );
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the key {} cannot be read", path.display()))?;
    let value = SecretValue::new(text.trim());
    for (reference, _) in public {
        vault.insert(reference.clone(), value.clone());
    }
    let captured = if scheme.uses_captured() { vec![value.clone()] } else { Vec::new() };
    Ok(Sender { vault, private: Some(value), captured })
}

/// A listener on all addresses is reached on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Replaces the proof by one of the right form that proves nothing: the signature of another body, or where the body is
/// not covered (a token) the credential with its last character changed.
fn spoil(
    provider: &Provider<'_>,
    notification: &Notification,
    which: usize,
    signed: &mut Signed,
) -> anyhow::Result<()> {
    let mut other = notification.clone();
    other.body = [&notification.body[..], b" "].concat().into();
    let wrong = provider.sign(&other, which)?;
    if wrong.headers != signed.headers {
        signed.headers = wrong.headers;
        return Ok(());
    }
    let given = &notification.headers;
    let names: Vec<HeaderName> =
        signed.headers.keys().filter(|name| !given.contains_key(*name)).cloned().collect();
    for name in &names {
        change_last(&mut signed.headers, name)?;
    }
    if names.is_empty() {
        let query: Vec<(String, String)> = signed
            .url
            .query_pairs()
            .map(|(name, value)| (name.into_owned(), format!("{value}x")))
            .collect();
        anyhow::ensure!(
            !query.is_empty(),
            "a bad signature cannot be made here: what proves the sender stands in the body, or nothing does"
        );
        signed.url.query_pairs_mut().clear().extend_pairs(query);
    }
    Ok(())
}

fn change_last(headers: &mut HeaderMap, name: &HeaderName) -> anyhow::Result<()> {
    let mut value = headers[name].as_bytes().to_vec();
    match value.last_mut() {
        Some(last) => *last = if *last == b'A' { b'B' } else { b'A' },
        None => value.push(b'A'),
    }
    headers.insert(name.clone(), HeaderValue::from_bytes(&value)?);
    Ok(())
}
