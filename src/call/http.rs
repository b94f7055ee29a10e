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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{HeaderMap, Method};
    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::*;
    use crate::config::{EgressHost, EgressRule};
    use crate::world::clock::{ManualClock, SystemClock};

    /// A server that sends `answer` to each request and closes; `None`: it reads on for ever. Counts requests.
    struct Server {
        port: u16,
        requests: Arc<AtomicUsize>,
        received: Arc<Notify>,
    }

    async fn server(answer: Option<&'static str>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let received = Arc::new(Notify::new());
        let (count, signal) = (Arc::clone(&requests), Arc::clone(&received));
        drop(tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).await.unwrap();
                    bytes.push(byte[0]);
                }
                count.fetch_add(1, Ordering::SeqCst);
                signal.notify_one();
                match answer {
                    Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    None => while stream.read(&mut [0]).await.unwrap_or(0) > 0 {},
                }
            }
        }));
        Server { port, requests, received }
    }

    fn transport(allow: &[(&str, Option<u16>)], clock: Arc<dyn Clock>) -> HttpTransport {
        let rules = allow
            .iter()
            .map(|(host, port)| EgressRule {
                host: match host.parse::<IpAddr>() {
                    Ok(address) => EgressHost::Net(address.into()),
                    Err(_) => EgressHost::Name((*host).to_owned()),
                },
                port: *port,
            })
            .collect();
        HttpTransport::new(Fence::new(rules), clock).unwrap()
    }

    fn get(url: &str) -> WireRequest {
        WireRequest {
            method: Method::GET,
            url: Url::parse(url).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            response_bytes_max: 8,
        }
    }

    async fn send(allow: &[(&str, Option<u16>)], url: &str) -> Sent {
        let clock = Arc::new(SystemClock::start());
        transport(allow, clock).send(get(url), Duration::from_secs(20)).await
    }

    const ANY: &[(&str, Option<u16>)] = &[("127.0.0.1", None)];

    #[tokio::test]
    async fn refused_addresses_are_not_connected_to() {
        let server = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
        let port = server.port;
        let by_port: &[_] = &[("127.0.0.1", Some(port + 1))];
        for (allow, host) in [
            (&[][..], "127.0.0.1"),
            (&[][..], "localhost"),
            (&[][..], "LOCALHOST"),
            (&[][..], "0x7f.1"),
            (&[][..], "[::ffff:127.0.0.1]"),
            (by_port, "127.0.0.1"),
            (by_port, "localhost"),
        ] {
            let sent = send(allow, &format!("http://{host}:{port}/secret")).await;
            let Sent::NotSent { why, kind: NotSentKind::Refused } = sent else {
                panic!("{host}: {sent:?}")
            };
            assert!(why.contains("loopback") && !why.contains("secret"), "{why}");
        }
        assert_eq!(server.requests.load(Ordering::SeqCst), 0);

        for (allow, host) in [
            (ANY, "127.0.0.1"),
            (ANY, "localhost"),
            (&[("127.0.0.1", Some(port))], "localhost"),
            (&[("localhost", Some(port))], "localhost"),
        ] {
            let sent = send(allow, &format!("http://{host}:{port}/")).await;
            assert!(matches!(sent, Sent::Answered(_)), "{host}: {sent:?}");
        }
        assert_eq!(server.requests.load(Ordering::SeqCst), 4);
        let scheme = send(&[], "ftp://example.com/").await;
        assert!(matches!(scheme, Sent::NotSent { kind: NotSentKind::Refused, .. }));
    }

    #[tokio::test]
    async fn a_failed_connect_has_sent_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let sent = send(ANY, &format!("http://127.0.0.1:{port}/token-in-path")).await;
        let Sent::NotSent { why, kind: NotSentKind::Connect } = sent else { panic!("{sent:?}") };
        assert_eq!(why, "connection refused");

        // Plain text where TLS is expected.
        let server = server(Some("HTTP/1.1 200 OK\r\n\r\n")).await;
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = plain.local_addr().unwrap().port();
        drop(tokio::spawn(async move {
            let (mut stream, _) = plain.accept().await.unwrap();
            stream.write_all(b"not TLS at all, not at all").await.unwrap();
        }));
        let sent = send(ANY, &format!("https://127.0.0.1:{port}/")).await;
        assert!(matches!(sent, Sent::NotSent { kind: NotSentKind::Connect, .. }), "{sent:?}");
        drop(server);
    }

    #[tokio::test]
    async fn whatever_breaks_after_the_first_byte_is_no_answer() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "garbage\r\n\r\n",
        ] {
            let server = server(Some(answer)).await;
            let sent = send(ANY, &format!("http://127.0.0.1:{}/token-in-path", server.port)).await;
            let Sent::NoAnswer { why, timed_out: false } = sent else {
                panic!("{answer:?}: {sent:?}")
            };
            assert!(!why.contains("token") && !why.contains("127"), "{why}");
            assert_eq!(server.requests.load(Ordering::SeqCst), 1, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up_at_the_deadline() {
        let server = server(None).await;
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let transport = transport(ANY, Arc::clone(&clock) as Arc<dyn Clock>);
        let call = transport
            .send(get(&format!("http://127.0.0.1:{}/", server.port)), Duration::from_secs(10));
        let (sent, ()) = tokio::join!(call, async {
            server.received.notified().await;
            clock.advance(Duration::from_secs(10));
        });
        assert!(matches!(sent, Sent::NoAnswer { timed_out: true, .. }), "{sent:?}");
    }

    #[tokio::test]
    async fn answers_are_read_up_to_the_bound_and_redirects_are_answers() {
        for (answer, status, body, truncated) in [
            ("HTTP/1.1 201 Created\r\ncontent-length: 8\r\n\r\n12345678", 201, "12345678", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789", 200, "12345678", true),
            ("HTTP/1.1 302 Found\r\nlocation: /on\r\ncontent-length: 0\r\n\r\n", 302, "", false),
            ("HTTP/1.1 503 No\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n", 503, "", false),
        ] {
            let server = server(Some(answer)).await;
            let sent = send(ANY, &format!("http://127.0.0.1:{}/", server.port)).await;
            let Sent::Answered(response) = sent else { panic!("{answer}: {sent:?}") };
            assert_eq!(
                (response.status, &response.body[..], response.truncated),
                (status, body.as_bytes(), truncated)
            );
            assert_eq!(server.requests.load(Ordering::SeqCst), 1);
        }
    }

    #[tokio::test]
    async fn a_pooled_connection_that_died_repeats_nothing() {
        // The server closes after each answer without saying so.
        let server = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
        let transport = transport(ANY, Arc::new(SystemClock::start()));
        let url = format!("http://127.0.0.1:{}/", server.port);
        let mut answered = 0;
        for _ in 0..20 {
            if let Sent::Answered(_) = transport.send(get(&url), Duration::from_secs(20)).await {
                answered += 1;
            }
        }
        assert!(answered > 0);
        assert!(server.requests.load(Ordering::SeqCst) <= 20);
    }
}
