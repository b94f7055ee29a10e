//! Certificates that the request names by a URL: which URLs are the provider's, and whether what came is a certificate of
//! its own.

use jiff::Timestamp;
use regex::Regex;
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use url::Url;
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate as Parsed;
use x509_cert::der::{Decode, Encode};

use super::algorithm;
use super::fetched::{KeySet, KeysAt, is_safe};
use super::request::{Found, Request};
use super::scheme::{PublicKey, Rejection};
use super::text::Selector;

#[derive(Clone, Debug)]
pub struct Certificate {
    /// Where the request names it.
    pub url: Selector,
    /// The whole host and the whole path: of nowhere else a certificate is fetched.
    pub host: Regex,
    pub path: Option<Regex>,
    /// It must be issued for this name by an authority that browsers trust.
    pub name: Option<String>,
}

impl Certificate {
    /// Where it is, if the provider may keep it there.
    pub(super) fn place(&self, request: &Request<'_>) -> Result<KeysAt, Rejection> {
        let text = match request.find(&self.url) {
            Found::Once(text) => text,
            Found::Absent => return Err(Rejection::MissingSignature),
            Found::Repeated => return Err(Rejection::ForeignCertificate),
        };
        let url = std::str::from_utf8(&text).ok().and_then(|text| Url::parse(text).ok());
        let url = url.ok_or(Rejection::ForeignCertificate)?;
        let pinned = url.host_str().is_some_and(|host| self.host.is_match(host))
            && self.path.as_ref().is_none_or(|path| path.is_match(url.path()))
            && is_safe(&url);
        match pinned {
            true => Ok(KeysAt::Certificate(url)),
            false => Err(Rejection::ForeignCertificate),
        }
    }

    /// The key in the certificate that was fetched.
    pub(super) fn key(&self, kind: PublicKey, request: &Request<'_>) -> Result<Vec<u8>, Rejection> {
        let at = self.place(request)?;
        match request.keys.fetched.get(&at) {
            Some(KeySet::Chain(chain)) => self
                .key_of(kind, chain, webpki_roots::TLS_SERVER_ROOTS, request.now)
                .ok_or(Rejection::BadCertificate),
            // A stand-in: what is fetched from such a place is a chain.
            Some(KeySet::Keys(keys)) => keys
                .iter()
                .find_map(|key| key.key.of_kind(kind).map(<[u8]>::to_vec))
                .ok_or(Rejection::BadCertificate),
            None => Err(Rejection::KeyUnavailable),
        }
    }

    fn key_of(
        &self,
        kind: PublicKey,
        chain: &[CertificateDer<'_>],
        roots: &[TrustAnchor<'_>],
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let (first, issuers) = chain.split_first()?;
        let parsed = Parsed::from_der(first).ok()?;
        let (valid, seconds) = (&parsed.tbs_certificate().validity(), now.as_second());
        let since = i64::try_from(valid.not_before.to_unix_duration().as_secs()).ok()?;
        let until = i64::try_from(valid.not_after.to_unix_duration().as_secs()).ok()?;
        if !(since..=until).contains(&seconds) {
            return None;
        }
        if let Some(name) = &self.name {
            let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                u64::try_from(seconds).ok()?,
            ));
            let certificate = EndEntityCert::try_from(first).ok()?;
            let algorithms = webpki::ALL_VERIFICATION_ALGS;
            let usage = KeyUsage::server_auth();
            certificate
                .verify_for_usage(algorithms, roots, issuers, time, usage, None, None)
                .ok()?;
            let name = ServerName::try_from(name.as_str()).ok()?;
            certificate.verify_is_valid_for_subject_name(&name).ok()?;
        }
        let key = parsed.tbs_certificate().subject_public_key_info().to_der().ok()?;
        algorithm::public_key(kind, &key).ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::secret::Vault;
    use crate::verify::fetched::Fetched;
    use crate::verify::{About, Keys, Received};

    const CA: &[u8] = include_bytes!("tests/certificates/ca.pem");
    const LEAF: &[u8] = include_bytes!("tests/certificates/leaf.pem");
    const OWN: &[u8] = include_bytes!("tests/certificates/own.pem");

    fn certificate(name: Option<&str>) -> Certificate {
        Certificate {
            url: Selector::Header("x-cert".to_owned()),
            host: Regex::new(r"^(?:sns\.[a-z0-9-]{3,}\.example\.com)$").unwrap(),
            path: Some(Regex::new(r"^(?:.*\.pem)$").unwrap()),
            name: name.map(str::to_owned),
        }
    }

    fn received(url: &str) -> Received {
        let mut headers = HeaderMap::new();
        headers.insert("x-cert", HeaderValue::from_str(url).unwrap());
        Received {
            method: Method::POST,
            target: "/".to_owned(),
            path: Vec::new(),
            query: Vec::new(),
            headers,
            body: Bytes::new(),
            received_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_the_providers_places_are_looked_at() {
        let vault = Vault::default();
        let check = |url: &str, expected: bool| {
            let received = received(url);
            let now = Timestamp::UNIX_EPOCH;
            let request = Request::new(&received, Keys::of(&vault), About::default(), now);
            let place = certificate(None).place(&request);
            assert_eq!(place.is_ok(), expected, "{url}: {place:?}");
        };
        check("https://sns.eu-west-1.example.com/a.pem", true);
        check("https://SNS.eu-west-1.EXAMPLE.com/a.pem", true);
        for url in [
            "http://sns.eu-west-1.example.com/a.pem",
            "https://sns.eu-west-1.example.com.evil.example/a.pem",
            "https://sns.eu-west-1.example.com@evil.example/a.pem",
            "https://evil.example/sns.eu-west-1.example.com/a.pem",
            "https://evil.example#sns.eu-west-1.example.com/a.pem",
            "https://user:pw@sns.eu-west-1.example.com/a.pem",
            "https://xsns.eu-west-1.example.com/a.pem",
            "https://sns.eu-west-1.example.com/a.pem?b",
            "https://sns.eu-west-1.example.com/a.txt",
            "file:///etc/a.pem",
            "https://127.0.0.1/a.pem",
            "no url",
            "",
        ] {
            // A query changes nothing about the place: what is pinned are host and path.
            check(url, url.ends_with("?b"));
        }
    }

    fn seconds(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_certificate_is_valid_now_and_where_that_is_asked_for_its_name_and_issuer_are_right() {
        let chain = |text: &[u8]| match KeySet::chain(text).unwrap() {
            KeySet::Chain(chain) => chain,
            KeySet::Keys(_) => panic!("a chain"),
        };
        let (authority, leaf, own) = (chain(CA), chain(LEAF), chain(OWN));
        let roots = [webpki::anchor_from_trusted_cert(&authority[0]).unwrap()];
        let now = seconds("2027-01-01T00:00:00Z");
        let key = |name: Option<&str>, chain: &[CertificateDer<'_>], now: Timestamp| {
            certificate(name).key_of(PublicKey::RsaSha256, chain, &roots, now)
        };
        let public = algorithm::pem(include_str!("tests/certificates/leaf.pub.pem")).unwrap();
        let public = algorithm::public_key(PublicKey::RsaSha256, &public).unwrap();
        let signer = Some("signer.example.com");
        assert_eq!(key(signer, &leaf, now), Some(public.clone()));
        assert_eq!(key(None, &leaf, now), Some(public));
        assert!(key(None, &own, now).is_some());
        assert_eq!(key(signer, &own, now), None, "nobody issued it");
        assert_eq!(key(Some("other.example.com"), &leaf, now), None);
        assert_eq!(key(signer, &[], now), None);
        for when in ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
            assert_eq!(key(None, &leaf, seconds(when)), None, "{when}");
        }
        let kind = PublicKey::EcdsaP256Sha256;
        assert_eq!(certificate(None).key_of(kind, &leaf, &roots, now), None);

        for (kind, signature) in [
            (PublicKey::RsaSha256, &include_bytes!("tests/certificates/leaf.sha256")[..]),
            (PublicKey::RsaSha1, include_bytes!("tests/certificates/leaf.sha1")),
        ] {
            let key = certificate(signer).key_of(kind, &leaf, &roots, now).unwrap();
            let algorithm = super::super::scheme::Algorithm::PublicKey(kind);
            let signed = |text: &[u8]| {
                bool::from(algorithm::is_signed(algorithm, &key, &[text], &[signature.to_vec()]))
            };
            assert!(signed(b"signed") && !signed(b"Signed"), "{kind:?}");
        }
    }

    #[test]
    fn what_was_not_fetched_is_not_judged() {
        let (vault, received) =
            (Vault::default(), received("https://sns.eu-west-1.example.com/a.pem"));
        let verdict = |fetched: &Fetched| {
            let keys = Keys { fetched, ..Keys::of(&vault) };
            let now = seconds("2027-01-01T00:00:00Z");
            let request = Request::new(&received, keys, About::default(), now);
            certificate(Some("signer.example.com")).key(PublicKey::RsaSha256, &request).map(drop)
        };
        assert_eq!(verdict(&Fetched::default()), Err(Rejection::KeyUnavailable));
        // Of no public authority.
        let fetched = Fetched::everywhere(KeySet::chain(LEAF).unwrap());
        assert_eq!(verdict(&fetched), Err(Rejection::BadCertificate));
    }
}
