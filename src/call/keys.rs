//! Keys of providers over HTTP: fetched when a verification needs them, kept for a while, and never fetched more often than a
//! stranger's requests can be allowed to cause. And the one GET by which a provider's subscription is confirmed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, Method};
use serde::Deserialize;
use url::Url;

use crate::telemetry::{Metrics, log};
use crate::verify::fetched::{Fetched, KeySet, KeysAt, Want, is_safe};
use crate::world::clock::Clock;
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
const PAUSE_UNKNOWN: Duration = Duration::from_secs(60);
/// Places in memory; the one longest not looked at goes first.
const PLACES_MAX: usize = 256;
/// Certificates are named by the request: so many different ones in a minute, for all sources together.
const CERTIFICATES_PER_MINUTE: u32 = 60;

/// Fetches and remembers.
pub struct KeyFetcher {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    by_place: BTreeMap<KeysAt, (Duration, Arc<tokio::sync::Mutex<Place>>)>,
    /// When the running minute of certificates began, and how many there were.
    minute: (Duration, u32),
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
    pub fn new(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { transport, clock, metrics, places: Mutex::default() }
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

    async fn one(&self, want: &Want) -> Option<Arc<KeySet>> {
        let place = self.place(&want.at)?;
        let mut place = place.lock().await;
        let now = self.clock.monotonic();
        let since_try = place.tried.map(|at| now.saturating_sub(at));
        let may_try = |pause| since_try.is_none_or(|since| since >= pause);
        let age = now.saturating_sub(place.fetched);
        let fetch = match &place.set {
            Some(set) if age < place.fresh_for => {
                !set.knows(want.key_id.as_deref()) && may_try(PAUSE_UNKNOWN)
            }
            Some(_) | None => may_try(PAUSE),
        };
        if fetch {
            place.tried = Some(now);
            let found = self.fetch(&want.at).await;
            self.metrics.keys_fetched(found.is_ok());
            match found {
                Ok((set, fresh_for)) => {
                    *place = Place {
                        set: Some(Arc::new(set)),
                        fetched: now,
                        fresh_for,
                        tried: Some(now),
                    };
                }
                Err(why) => log::keys_not_fetched(&described(&want.at), &why),
            }
        }
        let age = now.saturating_sub(place.fetched);
        place.set.clone().filter(|_| age < KEPT_MAX.max(place.fresh_for))
    }

    /// The place in memory; `None`: it is new, and there were too many new ones.
    fn place(&self, at: &KeysAt) -> Option<Arc<tokio::sync::Mutex<Place>>> {
        let now = self.clock.monotonic();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((looked_at, place)) = places.by_place.get_mut(at) {
            *looked_at = now;
            return Some(Arc::clone(place));
        }
        if matches!(at, KeysAt::Certificate(_)) {
            if now.saturating_sub(places.minute.0) >= Duration::from_secs(60) {
                places.minute = (now, 0);
            }
            if places.minute.1 >= CERTIFICATES_PER_MINUTE {
                return None;
            }
            places.minute.1 += 1;
        }
        if places.by_place.len() >= PLACES_MAX {
            let oldest = places.by_place.iter().min_by_key(|(_, (looked_at, _))| *looked_at);
            let oldest = oldest.map(|(at, _)| at.clone())?;
            places.by_place.remove(&oldest);
        }
        let place = Arc::<tokio::sync::Mutex<Place>>::default();
        places.by_place.insert(at.clone(), (now, Arc::clone(&place)));
        Some(place)
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
            Sent::Answered(answer) if answer.status == 200 => Ok(answer),
            Sent::Answered(answer) => Err(format!("the answer was {}", answer.status)),
            Sent::NotSent { why, .. } | Sent::NoAnswer { why, .. } => Err(why),
        }
    }

    /// GETs a URL that a provider gave to confirm a subscription; any 2xx confirms.
    pub async fn confirm(&self, url: &Url) -> Result<(), String> {
        self.read(url).await.map(drop)
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
        let fetcher = KeyFetcher::new(script.clone(), clock.clone(), Arc::new(Metrics::new()));
        Rig { script, clock, fetcher }
    }

    impl Rig {
        fn has(&self, at: &KeysAt, key_id: Option<&str>) -> bool {
            let want = Want { at: at.clone(), key_id: key_id.map(str::to_owned) };
            self.fetcher.one(&want).now_or_never().expect("nothing to wait for").is_some()
        }

        fn asked(&self) -> usize {
            self.script.asked.lock().unwrap().len()
        }
    }

    fn jwks() -> KeysAt {
        KeysAt::Jwks("https://keys.example/set".parse().unwrap())
    }

    #[test]
    fn a_set_is_fetched_once_and_again_when_it_is_old_or_a_key_is_new() {
        let rig = rig(&[(200, SET), (200, &SET.replace("ID", "next")), (200, SET)]);
        let at = jwks();
        assert!(rig.has(&at, Some("ID")) && rig.has(&at, Some("ID")));
        assert_eq!(rig.asked(), 1);
        // Names that a stranger makes up cause one fetch in a minute.
        assert!(rig.has(&at, Some("other")));
        assert_eq!(rig.asked(), 1);
        rig.clock.advance(PAUSE_UNKNOWN);
        assert!(rig.has(&at, Some("next")) && rig.has(&at, Some("other")));
        assert_eq!(rig.asked(), 2);
        rig.clock.advance(FRESH);
        assert!(rig.has(&at, Some("ID")));
        assert_eq!(rig.asked(), 3);
        // Nobody answers any more: the old set serves for a day.
        rig.clock.advance(FRESH);
        assert!(rig.has(&at, Some("ID")) && rig.has(&at, Some("ID")));
        assert_eq!(rig.asked(), 4);
        rig.clock.advance(KEPT_MAX);
        assert!(!rig.has(&at, Some("ID")));
    }

    #[test]
    fn what_cannot_be_had_is_tried_again_after_a_pause() {
        let rig = rig(&[(500, ""), (200, "no set"), (200, SET)]);
        let at = jwks();
        for tried in 1..=2 {
            assert!(!rig.has(&at, None) && !rig.has(&at, None));
            assert_eq!(rig.asked(), tried);
            rig.clock.advance(PAUSE);
        }
        assert!(rig.has(&at, None));
    }

    #[test]
    fn an_issuer_says_where_its_keys_are() {
        let found = r#"{"jwks_uri":"https://issuer.example/keys"}"#;
        let rig = rig(&[(200, found), (200, SET), (200, r#"{"jwks_uri":"http://10.0.0.1/"}"#)]);
        let at = KeysAt::Issuer("https://issuer.example/tenant/".parse().unwrap());
        assert!(rig.has(&at, Some("ID")));
        let expected = [
            "https://issuer.example/tenant/.well-known/openid-configuration",
            "https://issuer.example/keys",
        ];
        assert_eq!(*rig.script.asked.lock().unwrap(), expected);
        assert!(!rig.has(&KeysAt::Issuer("https://other.example".parse().unwrap()), None));
        assert_eq!(rig.asked(), 3);
    }

    #[test]
    fn strangers_cannot_have_any_number_of_certificates_fetched() {
        let rig = rig(&[]);
        for number in 0..1000 {
            let url = format!("https://sns.example/{number}.pem").parse().unwrap();
            assert!(!rig.has(&KeysAt::Certificate(url), None));
        }
        assert_eq!(rig.asked(), CERTIFICATES_PER_MINUTE as usize);
        assert!(rig.fetcher.places.lock().unwrap().by_place.len() <= PLACES_MAX);
    }
}
