//! `router send`: signs a sample with the route's own scheme and POSTs it; or asks what the provider asks in its handshake.

mod handshake;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use url::Url;

use super::sample::{self, Sample, SampleArgs};
use super::{Global, check, err, out};
use crate::config::resolve::{Process, resolve};
use crate::config::{RouteSet, Source};
use crate::secret::{SecretValue, Vault};
use crate::simulate::provider::{Provider, SendError};
use crate::simulate::stand_in;
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
    /// Makes what proves the sender a wrong one of the right form, so that the router must refuse it (401, or the source's `respond.unverified`)
    #[arg(long)]
    pub bad_signature: bool,
    /// Makes the provider's handshakes in the place of an event, each or that of number N (from 0), and compares the answers with what they must be
    #[arg(long, value_name = "N", num_args = 0..=1, conflicts_with = "duplicate")]
    pub handshake: Option<Option<usize>>,
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
    // Secrets of other routes are not needed here; one of this route that is missing is named by the signing.
    let (resolved, _unset) = resolve(&set, &Process);
    if let Some(number) = args.handshake {
        return handshake::run(&args, number, &set, source, resolved.vault, &world).await;
    }
    let sample = sample::compose(&args.sample, &loaded.files.root, route, source, &world)?;
    let key = args.key.as_deref();
    let sender = sender(resolved.vault, &source.verify.scheme, key, args.bad_signature)?;
    let provider = provider(&args, &set, source, &sample, &sender, &world)?;
    let signed = match args.bad_signature {
        true => provider.sign_wrongly(&sample.notification, args.secret),
        false => provider.sign(&sample.notification, args.secret),
    };
    let signed = match signed {
        Err(SendError::Sign(SignError::NoSuchSecret(_)))
            if source.verify.scheme.uses_captured() =>
        {
            anyhow::bail!(
                "the router gives nobody what a handshake brought, so nothing is signed with it here: give the one that you sent to be captured by `--key FILE`, or put a secret of your own beside it, `secret: [ {{ captured: true }}, {{ env: NAME }} ]`"
            )
        }
        signed => signed?,
    };

    let refused = source.respond.unverified.as_u16();
    let mut as_meant = true;
    for number in 1..=args.duplicate.saturating_add(1) {
        let start = world.clock.monotonic();
        let answer = signed.send().await?;
        let took_ms = world.clock.monotonic().saturating_sub(start).as_millis();
        out(&format!("{number}  {}  {took_ms} ms\n", status_line(answer.status)));
        if !answer.body.is_empty() {
            out(&format!("   {}\n", shown(&answer.body)));
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
            false => "error: not accepted; the router's log and `router_requests_rejected_total` in /metrics say why\n".to_owned(),
        });
    }
    Ok(ExitCode::from(u8::from(!as_meant)))
}

fn status_line(status: u16) -> String {
    let known = http::StatusCode::from_u16(status).ok();
    let reason = known.and_then(|status| status.canonical_reason()).unwrap_or_default();
    format!("{status} {reason}")
}

/// An answer's body for a terminal.
fn shown(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let mut shown = String::new();
    for letter in body.chars().take(500) {
        match letter.is_control() {
            true => shown.extend(letter.escape_debug()),
            false => shown.push(letter),
        }
    }
    shown
}

/// What sends to the source: where `--to` says, or to the router of this configuration on this machine.
fn provider<'a>(
    args: &Args,
    set: &RouteSet,
    source: &'a Source,
    sample: &Sample,
    sender: &'a Sender,
    world: &World,
) -> anyhow::Result<Provider<'a>> {
    let to = match &args.to {
        // Of a URL that is given the path stands; parameters come to it, for the signature may cover them.
        Some(to) => {
            let mut to = to.clone();
            if !sample.query.is_empty() {
                to.query_pairs_mut().extend_pairs(&sample.query);
            }
            to
        }
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
    Ok(Provider {
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
    })
}

/// What the sender has beside the configuration's secrets.
struct Sender {
    /// With the private key in the place of the public one.
    vault: Vault,
    private: Option<SecretValue>,
    captured: Vec<SecretValue>,
}

/// `stands_in`: nothing has to be signed well, so that a key of everybody's does where none is given.
fn sender(
    mut vault: Vault,
    scheme: &Scheme,
    key: Option<&Path>,
    stands_in: bool,
) -> anyhow::Result<Sender> {
    let (public, fetched) = (scheme.public_keys(), scheme.fetched_key());
    let Some(path) = key else {
        if stands_in {
            let (vault, _) = stand_in::vaults(scheme, &vault);
            let (private, _) = stand_in::fetched(scheme);
            let captured = match scheme.uses_captured() {
                true => vec![SecretValue::new("a secret that nobody brought")],
                false => Vec::new(),
            };
            return Ok(Sender { vault, private, captured });
        }
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
    let value = SecretValue::new(key_text(path)?.trim());
    for (reference, _) in public {
        vault.insert(reference.clone(), value.clone());
    }
    let captured = if scheme.uses_captured() { vec![value.clone()] } else { Vec::new() };
    Ok(Sender { vault, private: Some(value), captured })
}

fn key_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("the key {} cannot be read", path.display()))
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
