//! HTTP over real sockets: a [`Transport`] on reqwest, behind the egress fence. Every address is judged where the
//! connection is made, so a name that resolves differently the second time gains nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::egress::{Fence, Refused};
use crate::world::clock::{Clock, timeout};
use crate::world::transport::{NotSentKind, Sent, Transport, WireRequest, WireResponse};

/// A connect that takes longer has failed: then nothing was sent, and that is known. Calls with a shorter limit lose
/// this knowledge: they end as "no answer".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections are dropped before most servers drop them, so that fewer requests meet a closing one.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
const POOL_IDLE_PER_HOST_MAX: usize = 64;

/// One client per port that an `egress.allow` rule names, and one for all other ports: the resolver is not told the port,
/// so each client's resolver judges for its own.
pub struct HttpTransport {
    clock: Arc<dyn Clock>,
    fence: Arc<Fence>,
    by_port: BTreeMap<u16, reqwest::Client>,
    any_port: reqwest::Client,
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be built: {0}")]
pub struct BuildError(pub(super) String);

impl HttpTransport {
    pub fn new(fence: Fence, clock: Arc<dyn Clock>) -> Result<Self, BuildError> {
        let fence = Arc::new(fence);
        let ports: BTreeSet<u16> = fence.ports().collect();
        let by_port = ports
            .iter()
            .map(|&port| Ok((port, fenced_client(&fence, Some(port))?)))
            .collect::<Result<_, BuildError>>()?;
        let any_port = fenced_client(&fence, None)?;
        Ok(Self { clock, fence, by_port, any_port })
    }

    /// Judges what the resolver never sees: hosts that are addresses already, in any spelling (`Url` normalises them).
    fn refuse_before_flight(&self, url: &Url) -> Option<String> {
        if !matches!(url.scheme(), "http" | "https") {
            return Some(format!("the scheme `{}` is not http or https", url.scheme()));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) => return None,
            None => return Some("the URL names no host".to_owned()),
        };
        // For an address, the name as the URL writes it is the address itself: only nets can list it.
        self.fence.admit(None, address, port_of(url)).err().map(|refused| refused.to_string())
    }

    async fn exchange(&self, request: WireRequest) -> Sent {
        let client = self.by_port.get(&port_of(&request.url)).unwrap_or(&self.any_port);
        let sent = client
            .request(request.method, request.url)
            .headers(request.headers)
            .body(request.body)
            .send()
            .await;
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return before_answer(&error),
        };
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        match read_body(&mut response, request.response_bytes_max).await {
            Ok((body, truncated)) => {
                Sent::Answered(WireResponse { status, headers, body, truncated })
            }
            Err(error) => Sent::NoAnswer {
                why: format!("the answer ({status}) broke off: {}", cause(&error)),
                timed_out: error.is_timeout(),
            },
        }
    }
}

impl Transport for HttpTransport {
    fn send(&self, request: WireRequest, deadline: Duration) -> BoxFuture<'_, Sent> {
        Box::pin(async move {
            if let Some(why) = self.refuse_before_flight(&request.url) {
                return Sent::NotSent { why, kind: NotSentKind::Refused };
            }
            match timeout(&*self.clock, deadline, self.exchange(request)).await {
                Some(sent) => sent,
                None => Sent::NoAnswer {
                    why: format!("no whole answer within {deadline:?}"),
                    timed_out: true,
                },
            }
        })
    }
}

fn port_of(url: &Url) -> u16 {
    // `refuse_before_flight` lets only http and https pass, and both have a default.
    url.port_or_known_default().unwrap_or(0)
}

/// A client that does one thing per request: no redirect (it would leave the fence's and the route's sight), no proxy of
/// the environment (it would hide the address), no repeat (the engine decides on repeats).
///
/// Beneath, hyper-util sends a request anew when a pooled connection turned out closed before a byte of the request was
/// written; it gets the request back from hyper only then, so that is not a second sending.
pub(super) fn client() -> reqwest::ClientBuilder {
    // Fails only where a provider is installed already, and then that one serves.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE_PER_HOST_MAX)
        .user_agent(concat!("router/", env!("CARGO_PKG_VERSION")))
}

fn fenced_client(fence: &Arc<Fence>, port: Option<u16>) -> Result<reqwest::Client, BuildError> {
    client()
        .dns_resolver(Arc::new(FencedResolver { fence: Arc::clone(fence), port }))
        .build()
        .map_err(|error| BuildError(cause(&error)))
}

/// The system's resolver; only addresses that the fence admits come out.
struct FencedResolver {
    fence: Arc<Fence>,
    /// `None`: a port that no rule names; 0 stands for it, and no rule can list that one.
    port: Option<u16>,
}

impl Resolve for FencedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let fence = Arc::clone(&self.fence);
        let port = self.port.unwrap_or(0);
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut admitted = Vec::with_capacity(found.len());
            let mut refused = None;
            for address in found {
                match fence.admit(Some(name.as_str()), address.ip(), port) {
                    Ok(()) => admitted.push(address),
                    Err(refusal) => refused = Some(refusal),
                }
            }
            match refused {
                Some(refusal) if admitted.is_empty() => Err(refusal.into()),
                _ => Ok(Box::new(admitted.into_iter()) as Addrs),
            }
        })
    }
}

/// What is known when no answer's head came. Only a failed connect is known to have sent nothing.
fn before_answer(error: &reqwest::Error) -> Sent {
    if let Some(refused) = find::<Refused>(error) {
        return Sent::NotSent { why: refused.to_string(), kind: NotSentKind::Refused };
    }
    let why = cause(error);
    if error.is_connect() && error.is_timeout() {
        Sent::NotSent { why, kind: NotSentKind::ConnectTimeout }
    } else if error.is_connect() || error.is_builder() {
        Sent::NotSent { why, kind: NotSentKind::Connect }
    } else {
        Sent::NoAnswer { why, timed_out: error.is_timeout() }
    }
}

pub(super) async fn read_body(
    response: &mut reqwest::Response,
    bytes_max: usize,
) -> Result<(Bytes, bool), reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = bytes_max - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body.freeze(), true));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body.freeze(), false))
}

/// The first error of type `E` in the chain of causes. An `io::Error` hides its own inner error from `source`.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What went wrong in words that hold nothing of the request: reqwest's own text has the URL, rustls' the host's name.
pub(super) fn cause(error: &reqwest::Error) -> String {
    if error.is_dns() {
        return "the host's name cannot be resolved".to_owned();
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        return match tls {
            rustls::Error::InvalidCertificate(_) => {
                "TLS: the server's certificate is not valid for this host".to_owned()
            }
            _ => "TLS: the handshake failed".to_owned(),
        };
    }
    if error.is_timeout() {
        return if error.is_connect() {
            "the connect took too long".to_owned()
        } else {
            "no answer in time".to_owned()
        };
    }
    if let Some(error) = find::<io::Error>(error) {
        return error.kind().to_string();
    }
    if error.is_connect() {
        "the connection failed".to_owned()
    } else if error.is_builder() {
        "the request cannot be built".to_owned()
    } else {
        "the connection broke before the answer".to_owned()
    }
}
