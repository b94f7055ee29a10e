//! `jwt`, `jwks` and `certificate`: proofs whose keys may have to be fetched.

use url::Url;

use super::context::{Checker, duration, many, scalar, string};
use super::scheme::first_key;
use super::text::Use;
use crate::diag::Diagnostic;
use crate::diag::code::Code;
use crate::secret::SecretRef;
use crate::syntax::Node;
use crate::verify::algorithm::JwtAlgorithm;
use crate::verify::certificate::Certificate;
use crate::verify::fetched::{KeysAt, is_safe};
use crate::verify::jwt::{Claim, ExpectedClaim, Jwt, JwtAt, JwtKeys};
use crate::verify::scheme::Secrets;
use crate::verify::text::Selector;

impl Checker {
    pub(super) fn jwt(&mut self, scheme: &Node, place: &Node, secrets: Secrets) -> Option<Jwt> {
        let node = scheme.get("jwt")?;
        let algorithms: Vec<JwtAlgorithm> = many(node.get("algorithms"))
            .iter()
            .filter_map(|name| {
                let name = &name.as_text()?.text;
                JwtAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == *name)
            })
            .collect();
        let public = algorithms.iter().filter(|algorithm| algorithm.public_key().is_some()).count();
        let fetched = scheme.get("jwks").is_some();
        let list = node.get("algorithms").map_or(node.span, |list| list.span);
        if algorithms.is_empty() {
            // One that is unknown is reported already.
            if !many(node.get("algorithms")).is_empty() {
                return None;
            }
            self.error(
                Code::InvalidValue,
                list,
                "a list of no algorithms verifies nothing",
                "write `[HS256]`, or what the provider signs by",
            );
            return None;
        }
        // By a public key that is taken for a shared secret anyone could sign.
        if public != 0 && public != algorithms.len() {
            self.error(
                Code::InvalidValue,
                list,
                "one key cannot be both a shared secret and a public key",
                "write `HS` algorithms, or others, not both",
            );
            return None;
        }
        if fetched && public == 0 {
            self.error(
                Code::InvalidValue,
                list,
                "a key set is public, and `HS` algorithms need a shared secret",
                "write `[RS256]`, or `secret` in the place of `jwks`",
            );
            return None;
        }
        let keys = match (secrets == Secrets::default(), scheme.get("jwks")) {
            // A key that the source pins stands for those that would be fetched.
            (false, _) => JwtKeys::Secrets { secrets, form: self.key_form(scheme)? },
            (true, Some(jwks)) => self.jwks(jwks)?,
            (true, None) => {
                self.no_secret(place);
                return None;
            }
        };
        let at = self.jwt_at(node)?;
        let mut claims = Vec::new();
        let mut faulty = false;
        for pair in node.get("claims").and_then(Node::as_map).unwrap_or_default() {
            let mut expected = Vec::new();
            for value in many(Some(&pair.value)) {
                let read = match value.as_bool() {
                    Some(flag) => Some(ExpectedClaim::Bool(flag)),
                    None => scalar(value)
                        .and_then(|text| self.layout_of(&text, value, Use::Value))
                        .map(ExpectedClaim::Text),
                };
                match read {
                    Some(read) => expected.push(read),
                    None => faulty = true,
                }
            }
            claims.push(Claim { name: pair.key.text.clone(), expected });
        }
        if faulty {
            return None;
        }
        let required =
            many(node.get("required")).iter().filter_map(|it| Some(it.as_text()?.text.clone()));
        let required = required.collect();
        let tolerance = duration(scheme, "tolerance");
        Some(Jwt { at, algorithms, keys, required, claims, tolerance })
    }

    fn jwt_at(&mut self, node: &Node) -> Option<JwtAt> {
        if let Some(name) = string(node, "detached") {
            self.header_name(&name, node.get("detached")?)?;
            return Some(JwtAt::Detached { name: name.to_ascii_lowercase() });
        }
        if node.get("bearer").is_some() {
            return Some(JwtAt::Bearer);
        }
        if node.get("body").is_some() {
            return Some(JwtAt::Body);
        }
        Some(match self.selector(node)? {
            Selector::Header(name) => {
                JwtAt::Header { name, prefix: string(node, "prefix").unwrap_or_default() }
            }
            selector => JwtAt::At(selector),
        })
    }

    fn jwks(&mut self, node: &Node) -> Option<JwtKeys> {
        if let Some(file) = node.get("file") {
            let path = &file.as_text()?.text;
            let file = self.files.folder_of(node.span.file).join(path);
            let reference = SecretRef::File(file);
            self.references.secrets.entry(reference.clone()).or_insert(node.span);
            return Some(JwtKeys::Pinned(reference));
        }
        let (text, is_issuer) = match (node.as_text(), node.get("url"), node.get("issuer")) {
            (Some(text), ..) => (text, false),
            (None, Some(url), _) => (url.as_text()?, false),
            (None, None, issuer) => (issuer?.as_text()?, true),
        };
        let text = self.with_config(&text.text, node)?;
        match Url::parse(&text).ok().filter(is_safe) {
            Some(url) => Some(JwtKeys::Fetched(match is_issuer {
                true => KeysAt::Issuer(url),
                false => KeysAt::Jwks(url),
            })),
            None => {
                self.error(
                    Code::InvalidValue,
                    node.span,
                    format!("`{text}` is no https URL"),
                    "keys are fetched over https alone: write the provider's URL, or `{ file: keys.json }`",
                );
                None
            }
        }
    }

    pub(super) fn certificate(&mut self, node: &Node) -> Option<Certificate> {
        let url = self.selector(node.get("url")?)?;
        let host = self.anchored_text(node.get("host")?)?;
        let path = match node.get("path") {
            Some(path) => Some(self.anchored_text(path)?),
            None => None,
        };
        Some(Certificate { url, host, path, name: string(node, "name") })
    }

    /// What is asked of a scheme whose keys are public and come with the request.
    pub(super) fn certificate_of(&mut self, scheme: &Node) -> Option<Option<Certificate>> {
        let Some(node) = scheme.get("certificate") else { return Some(None) };
        if scheme.get("rsa").is_none() && scheme.get("ecdsa").is_none() {
            self.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    first_key(node),
                    "a certificate holds a public key, and this scheme has none",
                )
                .help("write it beside `rsa` or `ecdsa`"),
            );
            return None;
        }
        self.certificate(node).map(Some)
    }
}
