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
