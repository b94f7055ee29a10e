//! Keys of providers over HTTP: fetched when a verification needs them, kept for a while, and never fetched more often than a
//! stranger's requests can be allowed to cause. And the one GET by which a provider's subscription is confirmed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, Method};
use serde::Deserialize;
use tokio::sync::{OwnedMutexGuard, oneshot};
use url::Url;

use crate::telemetry::{Metrics, log};
use crate::verify::fetched::{Fetched, KeySet, KeysAt, Want, is_safe};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::spawn::Spawn;
use crate::world::transport::{Sent, Transport, WireRequest, WireResponse};

/// Less than the shortest time that a provider waits.
const FETCH_TIMEOUT: Duration = Duration::from_secs(4);
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long a set counts as new where its server says nothing.
const FRESH: Duration = Duration::from_secs(3600);
const FRESH_MIN: Duration = Duration::from_secs(300);
/// What the server allows beyond this, and how long an old set serves while its server does not answer.
const KEPT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two fetches of the same, whatever fails and whatever key a token names.
const PAUSE: Duration = Duration::from_secs(10);
/// Between two fetches that only an unknown key's name causes.
const PAUSE_UNKNOWN: Duration = MINUTE;
const MINUTE: Duration = Duration::from_secs(60);
/// Certificates in memory; one that could not be had goes first, then the one longest not looked at. The places of key sets
/// stand in the configuration and are few.
const CERTIFICATES_MAX: usize = 256;
/// Certificates are named by the request: so many different ones in a minute, of each host.
const CERTIFICATES_PER_MINUTE: u32 = 60;
/// Hosts that are counted.
const HOSTS_MAX: usize = 64;

/// Fetches and remembers.
#[derive(Clone)]
pub struct KeyFetcher {
    way: Arc<Way>,
    places: Arc<Mutex<Places>>,
}

/// What a fetch needs: it goes on when whoever asked for it has hung up.
struct Way {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    spawn: Arc<dyn Spawn>,
    metrics: Arc<Metrics>,
}

type Shared = Arc<tokio::sync::Mutex<Place>>;

#[derive(Default)]
struct Places {
    sets: BTreeMap<KeysAt, Shared>,
    /// With the time of the last look.
    certificates: BTreeMap<KeysAt, (Duration, Shared)>,
    /// By host: when its running minute began, and how many there were.
    minutes: BTreeMap<String, (Duration, u32)>,
}

/// What is known of one place. Who fetches holds its lock: all who want the same wait for one fetch.
#[derive(Default)]
struct Place {
    set: Option<Arc<KeySet>>,
    fetched: Duration,
    fresh_for: Duration,
    tried: Option<Duration>,
}

impl KeyFetcher {
    pub fn new(transport: Arc<dyn Transport>, world: &World, metrics: Arc<Metrics>) -> Self {
        let (clock, spawn) = (Arc::clone(&world.clock), Arc::clone(&world.spawn));
        let way = Arc::new(Way { transport, clock, spawn, metrics });
        Self { way, places: Arc::default() }
    }

    /// What is wanted, as far as it can be had.
    pub async fn get(&self, wants: &[Want]) -> Fetched {
        let mut fetched = Fetched::default();
        for want in wants {
            if let Some(set) = self.one(want).await {
                fetched.insert(want.at.clone(), set);
            }
        }
        fetched
    }

    /// A set that does not know the key is only given if it is as new as the question: otherwise the sender may have a newer
    /// one, and nothing is known of it.
    async fn one(&self, want: &Want) -> Option<Arc<KeySet>> {
        let shared = self.place(&want.at)?;
        let place = Arc::clone(&shared).lock_owned().await;
        let now = self.way.clock.monotonic();
        let since_try = place.tried.map(|at| now.saturating_sub(at));
        let may_try = |pause| since_try.is_none_or(|since| since >= pause);
        let key_id = want.key_id.as_deref();
        let is_new = now.saturating_sub(place.fetched) < place.fresh_for;
        let known = place.set.as_ref().filter(|_| is_new).map(|set| set.knows(key_id));
        let fetch = match known {
            Some(true) => false,
            Some(false) => may_try(PAUSE_UNKNOWN),
            None => may_try(PAUSE),
        };
        if !fetch {
            return place.lasting(now).filter(|set| set.knows(key_id));
        }
        let (done, ended) = oneshot::channel();
        let (way, at) = (Arc::clone(&self.way), want.at.clone());
        let renewed = async move {
            let succeeded = way.renew(&at, place).await;
            // Nobody may be left who waits.
            let (Ok(()) | Err(_)) = done.send(succeeded);
        };
        self.way.spawn.spawn("keys", Box::pin(renewed));
        let succeeded = ended.await.unwrap_or(false);
        let set = shared.lock().await.lasting(self.way.clock.monotonic());
        set.filter(|set| succeeded || set.knows(key_id))
    }

    /// The place in memory; `None`: it is new, and there were too many new ones.
    fn place(&self, at: &KeysAt) -> Option<Shared> {
        let now = self.way.clock.monotonic();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let KeysAt::Certificate(url) = at else {
            return Some(Arc::clone(places.sets.entry(at.clone()).or_default()));
        };
        if let Some((looked_at, place)) = places.certificates.get_mut(at) {
            *looked_at = now;
            return Some(Arc::clone(place));
        }
        let host = url.host_str()?.to_owned();
        if places.minutes.len() >= HOSTS_MAX && !places.minutes.contains_key(&host) {
            places.minutes.retain(|_, (began, _)| now.saturating_sub(*began) < MINUTE);
            if places.minutes.len() >= HOSTS_MAX {
                return None;
            }
        }
        let (began, count) = places.minutes.entry(host).or_insert((now, 0));
        if now.saturating_sub(*began) >= MINUTE {
            (*began, *count) = (now, 0);
        }
        if *count >= CERTIFICATES_PER_MINUTE {
            return None;
        }
        *count += 1;
        if places.certificates.len() >= CERTIFICATES_MAX {
            // One that is being fetched is in use.
            let worth = |place: &Shared| place.try_lock().is_ok_and(|it| it.set.is_none());
            let least = places
                .certificates
                .iter()
                .min_by_key(|(_, (looked_at, place))| (!worth(place), *looked_at))
                .map(|(at, _)| at.clone())?;
            places.certificates.remove(&least);
        }
        let place = Shared::default();
        places.certificates.insert(at.clone(), (now, Arc::clone(&place)));
        Some(place)
    }

    /// GETs a URL that a provider gave to confirm a subscription; any 2xx confirms.
    pub async fn confirm(&self, url: &Url) -> Result<(), String> {
        self.way.read(url).await.map(drop)
    }
}

impl Place {
    /// What is there, if it is not too old to serve.
    fn lasting(&self, now: Duration) -> Option<Arc<KeySet>> {
        let age = now.saturating_sub(self.fetched);
        self.set.clone().filter(|_| age < KEPT_MAX.max(self.fresh_for))
    }
}

impl Way {
    /// Fetches anew; true if that succeeded.
    async fn renew(&self, at: &KeysAt, mut place: OwnedMutexGuard<Place>) -> bool {
        let now = self.clock.monotonic();
        place.tried = Some(now);
        let found = self.fetch(at).await;
        self.metrics.keys_fetched(found.is_ok());
        match found {
            Ok((set, fresh_for)) => {
                let set = Some(Arc::new(set));
                *place = Place { set, fetched: now, fresh_for, tried: Some(now) };
                true
            }
            Err(why) => {
                log::keys_not_fetched(&described(at), &why);
                false
            }
        }
    }

    async fn fetch(&self, at: &KeysAt) -> Result<(KeySet, Duration), String> {
        match at {
            KeysAt::Jwks(url) => {
                let answer = self.read(url).await?;
                Ok((KeySet::jwks(&answer.body)?, fresh_for(&answer.headers)))
            }
            KeysAt::Issuer(issuer) => {
                #[derive(Deserialize)]
                struct Discovered {
                    jwks_uri: String,
                }
                let mut url = issuer.clone();
                let base = issuer.path().trim_end_matches('/');
                url.set_path(&format!("{base}/.well-known/openid-configuration"));
                let answer = self.read(&url).await?;
                let found: Discovered = serde_json::from_slice(&answer.body)
                    .map_err(|_| "the issuer's configuration has no `jwks_uri`".to_owned())?;
                let keys = Url::parse(&found.jwks_uri).ok().filter(is_safe);
                let keys = keys.ok_or("the issuer's `jwks_uri` is no https URL")?;
                let answer = self.read(&keys).await?;
                Ok((KeySet::jwks(&answer.body)?, fresh_for(&answer.headers)))
            }
            // What stands in a certificate does not change, and it says itself how long it is good.
            KeysAt::Certificate(url) => Ok((KeySet::chain(&self.read(url).await?.body)?, KEPT_MAX)),
        }
    }

    async fn read(&self, url: &Url) -> Result<WireResponse, String> {
        let request = WireRequest {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            response_bytes_max: ANSWER_BYTES_MAX,
        };
        match self.transport.send(request, FETCH_TIMEOUT).await {
            Sent::Answered(answer) if answer.truncated => {
                Err(format!("the answer has more than {ANSWER_BYTES_MAX} bytes"))
            }
            Sent::Answered(answer) if (200..300).contains(&answer.status) => Ok(answer),
            Sent::Answered(answer) => Err(format!("the answer was {}", answer.status)),
            Sent::NotSent { why, .. } | Sent::NoAnswer { why, .. } => Err(why),
        }
    }
}

/// What the server says (RFC 9111, 5.2.2.1), within bounds.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let said = headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let max_age = said.and_then(|text| {
        text.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok())
    });
    max_age.map_or(FRESH, Duration::from_secs).clamp(FRESH_MIN, KEPT_MAX)
}

/// For the log: no query, which may be anything.
fn described(at: &KeysAt) -> String {
    let (KeysAt::Jwks(url) | KeysAt::Issuer(url) | KeysAt::Certificate(url)) = at;
    let path: String = url.path().chars().take(100).collect();
    format!("{}://{}{path}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use jiff::Timestamp;

    use super::*;
    use crate::world::clock::ManualClock;
    use crate::world::spawn::TokioSpawn;
    use crate::world::transport::NotSentKind;

    const SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"ID","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    /// Answers in order; what comes after the last is a failure. Keeps the URLs.
    #[derive(Default)]
    struct Script {
        answers: Mutex<VecDeque<(u16, String)>>,
        asked: Mutex<Vec<String>>,
    }

    impl Transport for Script {
        fn send(&self, request: WireRequest, _: Duration) -> BoxFuture<'_, Sent> {
            self.asked.lock().unwrap().push(request.url.to_string());
            let answer = self.answers.lock().unwrap().pop_front();
            let sent = match answer {
                Some((status, body)) => Sent::Answered(WireResponse {
                    status,
                    headers: HeaderMap::new(),
                    body: body.into(),
                    truncated: false,
                }),
                None => Sent::NotSent { why: "gone".to_owned(), kind: NotSentKind::Connect },
            };
            async { sent }.boxed()
        }
    }

    struct Rig {
        script: Arc<Script>,
        clock: Arc<ManualClock>,
        fetcher: KeyFetcher,
    }

    fn rig(answers: &[(u16, &str)]) -> Rig {
        let script = Arc::new(Script::default());
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned()));
        script.answers.lock().unwrap().extend(answers);
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let world = World { clock: clock.clone(), spawn: Arc::new(TokioSpawn), ..World::real() };
        let fetcher = KeyFetcher::new(script.clone(), &world, Arc::new(Metrics::new()));
        Rig { script, clock, fetcher }
    }

    impl Rig {
        async fn has(&self, at: &KeysAt, key_id: Option<&str>) -> bool {
            let want = Want { at: at.clone(), key_id: key_id.map(str::to_owned) };
            self.fetcher.one(&want).await.is_some()
        }

        fn asked(&self) -> usize {
            self.script.asked.lock().unwrap().len()
        }
    }

    fn jwks() -> KeysAt {
        KeysAt::Jwks("https://keys.example/set".parse().unwrap())
    }

    #[tokio::test]
    async fn a_set_is_fetched_once_and_again_when_it_is_old_or_a_key_is_new() {
        let rig = rig(&[(200, SET), (200, &SET.replace("ID", "next")), (200, SET)]);
        let at = jwks();
        assert!(rig.has(&at, Some("ID")).await && rig.has(&at, Some("ID")).await);
        assert_eq!(rig.asked(), 1);
        // Names that a stranger makes up cause one fetch in a minute; until then nothing is known of them.
        assert!(!rig.has(&at, Some("other")).await);
        assert_eq!(rig.asked(), 1);
        rig.clock.advance(PAUSE_UNKNOWN);
        assert!(rig.has(&at, Some("next")).await && !rig.has(&at, Some("other")).await);
        assert_eq!(rig.asked(), 2);
        rig.clock.advance(PAUSE_UNKNOWN);
        // As new as the question: that it is unknown is known now.
        assert!(rig.has(&at, Some("other")).await);
        assert_eq!(rig.asked(), 3);
        // Nobody answers any more: the old set serves for a day.
        rig.clock.advance(FRESH);
        assert!(rig.has(&at, Some("ID")).await && rig.has(&at, Some("ID")).await);
        assert!(!rig.has(&at, Some("other")).await);
        assert_eq!(rig.asked(), 4);
        rig.clock.advance(KEPT_MAX);
        assert!(!rig.has(&at, Some("ID")).await);
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_tried_again_after_a_pause() {
        let rig = rig(&[(500, ""), (200, "no set"), (200, SET)]);
        let at = jwks();
        for tried in 1..=2 {
            assert!(!rig.has(&at, None).await && !rig.has(&at, None).await);
            assert_eq!(rig.asked(), tried);
            rig.clock.advance(PAUSE);
        }
        assert!(rig.has(&at, None).await);
    }

    #[tokio::test]
    async fn who_hangs_up_takes_no_fetch_with_him() {
        let rig = rig(&[(200, SET)]);
        let want = Want { at: jwks(), key_id: None };
        assert!(rig.fetcher.one(&want).now_or_never().is_none(), "the task has not run");
        // Nobody waits for it, and it is there.
        assert!(rig.has(&jwks(), Some("ID")).await);
        assert_eq!(rig.asked(), 1);
    }

    #[tokio::test]
    async fn an_issuer_says_where_its_keys_are() {
        let found = r#"{"jwks_uri":"https://issuer.example/keys"}"#;
        let rig = rig(&[(200, found), (200, SET), (200, r#"{"jwks_uri":"http://10.0.0.1/"}"#)]);
        let at = KeysAt::Issuer("https://issuer.example/tenant/".parse().unwrap());
        assert!(rig.has(&at, Some("ID")).await);
        let expected = [
            "https://issuer.example/tenant/.well-known/openid-configuration",
            "https://issuer.example/keys",
        ];
        assert_eq!(*rig.script.asked.lock().unwrap(), expected);
        assert!(!rig.has(&KeysAt::Issuer("https://other.example".parse().unwrap()), None).await);
        assert_eq!(rig.asked(), 3);
    }

    #[tokio::test]
    async fn strangers_cannot_have_any_number_of_certificates_fetched() {
        let pem = include_str!("../verify/tests/certificates/leaf.pem");
        let rig = rig(&[(200, pem)]);
        let certificate = |host: &str, number: usize| {
            KeysAt::Certificate(format!("https://{host}.example/{number}.pem").parse().unwrap())
        };
        assert!(rig.has(&certificate("good", 0), None).await);
        for round in 0..10 {
            for number in 0..100 {
                assert!(!rig.has(&certificate("bad", round * 100 + number), None).await);
            }
            // What could be had stays, and another host's have a budget of their own.
            assert!(rig.has(&certificate("good", 0), None).await);
            rig.clock.advance(MINUTE);
        }
        assert_eq!(rig.asked(), 1 + 10 * CERTIFICATES_PER_MINUTE as usize);
        assert!(rig.fetcher.places.lock().unwrap().certificates.len() <= CERTIFICATES_MAX);
    }
}
