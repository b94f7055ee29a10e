//! A downstream API on loopback. Scripts enter (per method and path: what to answer, or how to fail); every request and
//! every action done leaves, for a test to count. It knows nothing of routes or steps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::Value as Json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::world::clock::Clock;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counts from 1 in order of arrival.
    pub number: usize,
    pub at: Timestamp,
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    /// What the request says in `Idempotency-Key`.
    pub fn key(&self) -> Option<&str> {
        self.header("idempotency-key")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or(Json::Null)
    }
}

/// What the downstream does with a request. Only a 2xx [`Reply::Answer`], [`Reply::WorkThenDie`], [`Reply::WorkThenHang`]
/// and [`Reply::Truncated`] do the work.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer(Answer),
    /// Takes the request and never answers; nothing is done.
    Hang,
    /// Closes the connection hard; nothing is done.
    Reset,
    /// Does the work and closes the connection without an answer.
    WorkThenDie,
    /// Does the work and never answers.
    WorkThenHang,
    /// Does the work, promises a longer body than it sends, and closes the connection.
    Truncated(Answer),
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Waits this long before it answers.
    pub delay: Duration,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Reply::Answer(Answer::new(status, Bytes::new()))
    }

    pub fn json(status: u16, body: &Json) -> Self {
        Reply::Answer(
            Answer::new(status, body.to_string()).header("content-type", "application/json"),
        )
    }

    /// 429 with `Retry-After`.
    pub fn too_many(retry_after_s: u64) -> Self {
        Reply::Answer(
            Answer::new(429, Bytes::new()).header("retry-after", &retry_after_s.to_string()),
        )
    }

    fn does_the_work(&self) -> bool {
        match self {
            Reply::Answer(answer) => answer.status.is_success(),
            Reply::WorkThenDie | Reply::WorkThenHang | Reply::Truncated(_) => true,
            Reply::Hang | Reply::Reset => false,
        }
    }
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::from_u16(status).expect("a status from 100 to 999"),
            headers: HeaderMap::new(),
            body: body.into(),
            delay: Duration::ZERO,
        }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).expect("visible text"));
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// What a repeated idempotency key means to the downstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The work is done once per key; a repeat gets the same answer.
    Honoured,
    /// Every request is new work, as with most APIs.
    Ignored,
}

/// Work that was done: a request other than GET that was taken to its end, whether or not the answer arrived.
#[derive(Clone, Debug)]
pub struct Action {
    pub at: Timestamp,
    pub method: Method,
    pub path: String,
    pub key: Option<String>,
    pub body: Bytes,
}

impl Action {
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or(Json::Null)
    }
}

type Always = Box<dyn Fn(&Request) -> Reply + Send>;

#[derive(Default)]
struct State {
    /// Consumed one per request.
    scripts: BTreeMap<(String, String), VecDeque<Reply>>,
    always: BTreeMap<(String, String), Always>,
    keys: Option<Keys>,
    /// Answers given out per path and key.
    remembered: BTreeMap<(String, String), Answer>,
    requests: Vec<Request>,
    actions: Vec<Action>,
}

/// A running downstream. Dropping it closes its port and every connection.
pub struct Downstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Number of changes: requests that arrived and actions that were done.
    changes: watch::Sender<u64>,
}

impl Downstream {
    /// Starts on a port that the system chooses. Answers `200 {}` until told otherwise, and honours keys.
    pub async fn start(clock: Arc<dyn Clock>) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), clock).await
    }

    /// Starts on a given address: a downstream that was away and comes back.
    pub async fn start_at(address: SocketAddr, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::new(State::default()),
            changes: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn keys(&self, keys: Keys) {
        self.shared.state().keys = Some(keys);
    }

    /// The next requests of this method and path get these replies, one each, before what [`Downstream::always`] says.
    pub fn script(&self, method: Method, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut state = self.shared.state();
        state.scripts.entry(rule(&method, path)).or_default().extend(replies);
    }

    /// Requests of this method and path get this reply from now on.
    pub fn always(
        &self,
        method: Method,
        path: &str,
        reply: impl Fn(&Request) -> Reply + Send + 'static,
    ) {
        self.shared.state().always.insert(rule(&method, path), Box::new(reply));
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    pub fn requests_to(&self, method: &Method, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.method == *method && request.path == path);
        requests
    }

    /// All work done so far, in order.
    pub fn actions(&self) -> Vec<Action> {
        self.shared.state().actions.clone()
    }

    /// Idempotency keys under which work was done more than once.
    pub fn keys_done_twice(&self) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let keys = self.actions().into_iter().filter_map(|action| action.key);
        keys.filter(|key| !seen.insert(key.clone())).collect()
    }

    /// Resolves with the requests once there are at least `n`. The caller bounds the wait.
    pub async fn wait_for(&self, n: usize) -> Vec<Request> {
        self.wait_until(|downstream| downstream.shared.state().requests.len() >= n).await;
        self.requests()
    }

    /// Resolves once `predicate` holds; it is asked again at each request that arrives and each action done.
    pub async fn wait_until(&self, mut predicate: impl FnMut(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if predicate(self) {
                return;
            }
            changes.changed().await.expect("the sender lives as long as the downstream");
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn rule(method: &Method, path: &str) -> (String, String) {
    (method.to_string(), path.to_owned())
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    /// Records the request and decides the reply. Work is done here, under the lock, before any answer leaves.
    fn take(&self, mut request: Request) -> Reply {
        let mut state = self.state();
        request.number = state.requests.len() + 1;
        let rule = rule(&request.method, &request.path);
        state.requests.push(request.clone());
        let usual = match state.always.get(&rule) {
            Some(always) => always(&request),
            None => Reply::json(200, &Json::Object(serde_json::Map::new())),
        };
        let scripted = state.scripts.get_mut(&rule).and_then(VecDeque::pop_front);
        let reply = scripted.unwrap_or_else(|| usual.clone());
        let reply = state.work(&request, reply, usual);
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
        reply
    }
}

impl State {
    fn work(&mut self, request: &Request, reply: Reply, usual: Reply) -> Reply {
        if !reply.does_the_work() || request.method == Method::GET {
            return reply;
        }
        let key = request.key().map(str::to_owned);
        let place = match (self.keys.unwrap_or(Keys::Honoured), &key) {
            (Keys::Honoured, Some(key)) => Some((request.path.clone(), key.clone())),
            (Keys::Honoured, None) | (Keys::Ignored, _) => None,
        };
        if let Some(known) = place.as_ref().and_then(|place| self.remembered.get(place)) {
            return match reply {
                Reply::Answer(_) => Reply::Answer(known.clone()),
                other => other,
            };
        }
        self.actions.push(Action {
            at: request.at,
            method: request.method.clone(),
            path: request.path.clone(),
            key,
            body: request.body.clone(),
        });
        // An answer that is lost on its way is the one that a repeat gets.
        let answer = match (&reply, usual) {
            (Reply::Answer(answer) | Reply::Truncated(answer), _) => Some(answer.clone()),
            (_, Reply::Answer(answer)) => Some(answer),
            _ => None,
        };
        if let (Some(place), Some(answer)) = (place, answer) {
            self.remembered.insert(place, answer);
        }
        reply
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Aborting this task drops the set, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&shared)))),
                // Out of descriptors, or the peer is gone already: the next one may do better.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_ended) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // A second handle on the socket, so that a reply can choose how the connection ends.
    let Ok(stream) = stream.into_std() else { return };
    let Ok(handle) = stream.try_clone().and_then(TcpStream::from_std) else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let handle = Arc::new(handle);
    let service = service_fn(move |request| {
        let (shared, handle) = (Arc::clone(&shared), Arc::clone(&handle));
        async move { answer(request, &shared, &handle).await }
    });
    // A connection that ends badly is what some replies are for.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

type Body = BoxBody<Bytes, io::Error>;

async fn answer(
    request: hyper::Request<Incoming>,
    shared: &Shared,
    socket: &TcpStream,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = shared.take(Request {
        number: 0,
        at: shared.clock.now(),
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        body,
    });
    match reply {
        Reply::Answer(answer) => {
            if !answer.delay.is_zero() {
                shared.clock.sleep(answer.delay).await;
            }
            let body = Full::new(answer.body.clone()).map_err(never).boxed();
            Ok(response(&answer, body))
        }
        // hyper drops this future when the other side leaves.
        Reply::Hang | Reply::WorkThenHang => std::future::pending().await,
        // An error makes hyper close the connection without an answer.
        Reply::WorkThenDie => Err(io::Error::other("dies after the work")),
        Reply::Reset => {
            socket.set_zero_linger()?;
            Err(io::Error::other("resets the connection"))
        }
        Reply::Truncated(answer) => {
            let half = answer.body.slice(..answer.body.len() / 2);
            let frames = [Ok(Frame::data(half)), Err(io::Error::other("cuts the answer off"))];
            let mut response =
                response(&answer, BodyExt::boxed(StreamBody::new(stream::iter(frames))));
            let promised = HeaderValue::from(answer.body.len() + 1);
            response.headers_mut().insert(header::CONTENT_LENGTH, promised);
            Ok(response)
        }
    }
}

fn response(answer: &Answer, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers.clone();
    response
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::api;
    use crate::world::clock::SystemClock;
    use serde_json::json;

    async fn start() -> Downstream {
        Downstream::start(Arc::new(SystemClock::start())).await.unwrap()
    }

    /// POSTs and answers status and body, or `None` where no whole answer came.
    async fn post(downstream: &Downstream, path: &str, key: &str) -> Option<(u16, Bytes)> {
        let url = downstream.url(path).parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", HeaderValue::from_str(key).unwrap());
        let limit = Duration::from_secs(30);
        let answer = api::send(Method::POST, &url, headers, Bytes::from("{}"), limit).await.ok()?;
        Some((answer.status, answer.body))
    }

    #[tokio::test]
    async fn a_lost_answer_is_given_to_the_repeat() {
        let downstream = start().await;
        let made = |request: &Request| Reply::json(201, &json!({ "id": request.number }));
        downstream.always(Method::POST, "/a", made);
        downstream.script(Method::POST, "/a", [Reply::status(503), Reply::WorkThenDie]);
        assert_eq!(post(&downstream, "/a", "k").await, Some((503, Bytes::new())));
        assert_eq!(post(&downstream, "/a", "k").await, None);
        assert_eq!(downstream.actions().len(), 1);
        assert_eq!(post(&downstream, "/a", "k").await, Some((201, Bytes::from(r#"{"id":2}"#))));
        assert_eq!(downstream.actions().len(), 1);
        assert_eq!(downstream.requests().len(), 3);
        assert!(downstream.keys_done_twice().is_empty());
    }

    #[tokio::test]
    async fn one_that_ignores_keys_works_twice() {
        let downstream = start().await;
        downstream.keys(Keys::Ignored);
        for _ in 0..2 {
            assert_eq!(post(&downstream, "/a", "k").await.map(|(status, _)| status), Some(200));
        }
        assert_eq!(downstream.actions().len(), 2);
        assert_eq!(downstream.keys_done_twice(), BTreeSet::from(["k".to_owned()]));
    }

    #[tokio::test]
    async fn answers_can_be_cut_off_and_connections_reset() {
        let downstream = start().await;
        let cut = Reply::Truncated(Answer::new(200, "0123456789"));
        downstream.script(Method::POST, "/a", [cut, Reply::Reset]);
        assert_eq!(post(&downstream, "/a", "1").await, None);
        assert_eq!(downstream.actions().len(), 1);
        assert_eq!(post(&downstream, "/a", "2").await, None);
        assert_eq!(downstream.actions().len(), 1);
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_request_that_it_is_for() {
        let downstream = start().await;
        downstream.script(Method::POST, "/a", [Reply::Hang]);
        let hanging = post(&downstream, "/a", "k");
        tokio::select! {
            answer = hanging => panic!("it was not to answer: {answer:?}"),
            requests = downstream.wait_for(1) => assert_eq!(requests[0].key(), Some("k")),
        }
        assert!(downstream.actions().is_empty());
    }
}
