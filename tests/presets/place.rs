//! The places of a request that a scheme looks at, and the same request with another value there.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use router::body::BodyRule;
use router::verify::Received;
use router::verify::canonical::Canonical;
use router::verify::condition::Expected;
use router::verify::jwt::JwtAt;
use router::verify::scheme::{Scheme, SignatureSyntax, Step, TokenAt};
use router::verify::text::{Part, Selector};
use serde_json::Value as Json;
use url::form_urlencoded;

use super::vector::{Vector, received};

/// A place that a scheme looks at.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) at: Selector,
    pub(crate) role: Role,
    /// The way to the elements that have it each.
    pub(crate) within: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// The signature or the secret. Where it is a list split by commas, lines of a header are one list.
    Proof { list: bool },
    /// What is signed, or required.
    Part,
}

impl Place {
    pub(crate) fn of(scheme: &Scheme, within: &[Step]) -> Vec<Place> {
        let place = |at: &Selector, role| Place { at: at.clone(), role, within: within.to_vec() };
        match scheme {
            Scheme::Signing(signing) => {
                let list = matches!(
                    signing.signature.syntax,
                    SignatureSyntax::Pairs { separator: ',', .. }
                        | SignatureSyntax::Tagged { separator: ',', .. }
                        | SignatureSyntax::List { separator: ',', .. }
                );
                let mut places = vec![place(&signing.signature.at, Role::Proof { list })];
                let signed = signing.signed.iter().flat_map(|part| match part.source() {
                    Part::At(at) => vec![at.clone()],
                    Part::Canonical(Canonical::SignedHeaders { required }) => {
                        let names = required.iter().filter(|name| !name.starts_with('('));
                        names.map(|name| Selector::Header(name.clone())).collect()
                    }
                    Part::Canonical(Canonical::Lines(lines)) => {
                        let names = lines.iter().map(|line| format!("$.{}", line.name));
                        names.map(Selector::Json).collect()
                    }
                    Part::Canonical(Canonical::HeaderLines { list, required }) => {
                        let names = [list].into_iter().chain(required);
                        names.map(|name| Selector::Header(name.clone())).collect()
                    }
                    _ => Vec::new(),
                });
                let time = signing.timestamp.as_ref().map(|at| at.selector.clone());
                let certificate = signing.certificate.as_ref().map(|it| it.url.clone());
                for at in signed.chain(time).chain(certificate).chain(signing.id.clone()) {
                    if at != signing.signature.at {
                        places.push(place(&at, Role::Part));
                    }
                }
                places
            }
            Scheme::Token(token) => {
                let at = match &token.at {
                    TokenAt::Header(name) => Selector::Header(name.clone()),
                    TokenAt::Query(name) => Selector::Query(name.clone()),
                    TokenAt::Json(path) => Selector::Json(path.clone()),
                    TokenAt::Form(name) => Selector::Form(name.clone()),
                    TokenAt::Bearer | TokenAt::Basic { .. } => {
                        Selector::Header("authorization".to_owned())
                    }
                };
                vec![place(&at, Role::Proof { list: false })]
            }
            Scheme::Jwt(jwt) => {
                let at = match &jwt.at {
                    JwtAt::Header { name, .. } | JwtAt::Detached { name } => {
                        Selector::Header(name.clone())
                    }
                    JwtAt::Bearer => Selector::Header("authorization".to_owned()),
                    JwtAt::At(at) => at.clone(),
                    JwtAt::Body => return Vec::new(),
                };
                vec![place(&at, Role::Proof { list: false })]
            }
            Scheme::Require(conditions) => {
                let needed = conditions.all.iter().filter(|it| {
                    it.at != Selector::ContentType && !matches!(it.expected, Expected::Absent)
                });
                needed.map(|it| place(&it.at, Role::Part)).collect()
            }
            Scheme::AnyOf(all) | Scheme::AllOf(all) => {
                all.iter().flat_map(|scheme| Place::of(scheme, within)).collect()
            }
            Scheme::ForEach { path, scheme } => Place::of(scheme, path),
            Scheme::None { .. } => Vec::new(),
        }
    }

    /// The values there: one, or one of each element.
    pub(crate) fn values(&self, request: &Received, rule: Option<&BodyRule>) -> Vec<String> {
        match &self.at {
            Selector::Header(name) => {
                let all = request.headers.get_all(name.as_str()).iter();
                all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
            }
            Selector::Query(name) => {
                let all = request.query.iter().filter(|(key, _)| key == name);
                all.map(|(_, value)| value.clone()).collect()
            }
            Selector::Form(name) => {
                let all = pairs(&request.body).into_iter().filter(|(key, _)| key == name);
                all.map(|(_, value)| value).collect()
            }
            Selector::Json(path) => {
                let Some(mut json) = read(request, rule) else { return Vec::new() };
                let found = self.spots(&mut json, path);
                found.into_iter().filter(|it| !it.is_null()).map(|it| text(it)).collect()
            }
            Selector::ContentType | Selector::PathPart(_) => Vec::new(),
        }
    }

    pub(crate) fn spots<'j>(&self, json: &'j mut Json, path: &str) -> Vec<&'j mut Json> {
        let mut found = vec![json];
        for step in &self.within {
            found = found
                .into_iter()
                .flat_map(|json| match step {
                    Step::Member(name) => json.get_mut(name).into_iter().collect::<Vec<_>>(),
                    Step::Each => json.as_array_mut().unwrap().iter_mut().collect(),
                })
                .collect();
        }
        let names: Vec<&str> = path.trim_start_matches("$.").split('.').collect();
        let step = |json: &'j mut Json, names: &[&str]| {
            names.iter().try_fold(json, |json, name| json.get_mut(name))
        };
        found.into_iter().filter_map(|json| step(json, &names)).collect()
    }

    /// The request with another value at number `which` of them; `None`: without it.
    pub(crate) fn with(
        &self,
        vector: &Vector,
        rule: Option<&BodyRule>,
        which: usize,
        value: Option<&str>,
    ) -> Received {
        let mut request = received(vector);
        match &self.at {
            Selector::Header(name) => {
                request.headers.remove(name.as_str());
                if let Some(value) = value {
                    request.headers.insert(
                        name.parse::<HeaderName>().unwrap(),
                        HeaderValue::from_str(value).unwrap(),
                    );
                }
            }
            Selector::Query(name) => {
                replaced(&mut request.query, name, value);
                set_query(&mut request);
            }
            Selector::Form(name) => {
                let mut pairs = pairs(&request.body);
                replaced(&mut pairs, name, value);
                request.body = written(&pairs);
            }
            Selector::Json(path) => {
                let mut json = read(&request, rule).unwrap();
                let mut spots = self.spots(&mut json, path);
                *spots[which] = value.map_or(Json::Null, Json::from);
                write(&mut request, rule, &json);
            }
            Selector::ContentType | Selector::PathPart(_) => unreachable!(),
        }
        request
    }

    /// The request with `more` beside what is there, where a second one can be.
    pub(crate) fn twice(&self, vector: &Vector, more: &str) -> Option<Received> {
        let mut request = received(vector);
        match &self.at {
            Selector::Header(name) => {
                let name = name.parse::<HeaderName>().unwrap();
                request.headers.append(name, HeaderValue::from_str(more).unwrap());
            }
            Selector::Query(name) => {
                request.query.push((name.clone(), more.to_owned()));
                set_query(&mut request);
            }
            Selector::Form(name) => {
                let mut pairs = pairs(&request.body);
                pairs.push((name.clone(), more.to_owned()));
                request.body = written(&pairs);
            }
            Selector::Json(_) | Selector::ContentType | Selector::PathPart(_) => return None,
        }
        Some(request)
    }
}

pub(crate) fn text(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

pub(crate) fn pairs(body: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(body).into_owned().collect()
}

pub(crate) fn written(pairs: &[(String, String)]) -> Bytes {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into()
}

pub(crate) fn replaced(pairs: &mut Vec<(String, String)>, name: &str, value: Option<&str>) {
    for pair in pairs.iter_mut().filter(|(key, _)| key == name) {
        pair.1 = value.unwrap_or_default().to_owned();
    }
    if value.is_none() {
        pairs.retain(|(key, _)| key != name);
    }
}

pub(crate) fn set_query(request: &mut Received) {
    let query =
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&request.query).finish();
    let path = request.target.split('?').next().unwrap();
    request.target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
}

/// The JSON that stands in a field, however the form is written, or is the body.
pub(crate) fn read(request: &Received, rule: Option<&BodyRule>) -> Option<Json> {
    let body = match rule {
        Some(BodyRule::JsonIn { field }) if request.body.starts_with(b"--") => {
            let text = String::from_utf8_lossy(&request.body);
            assert!(text.contains(&format!("name=\"{field}\"")));
            text[text.find('{')?..=text.rfind('}')?].to_owned().into_bytes()
        }
        Some(BodyRule::JsonIn { field }) => {
            let pairs = pairs(&request.body);
            pairs.into_iter().find(|(name, _)| name == field)?.1.into_bytes()
        }
        _ => request.body.to_vec(),
    };
    serde_json::from_slice(&body).ok()
}

pub(crate) fn write(request: &mut Received, rule: Option<&BodyRule>, json: &Json) {
    let json = json.to_string();
    request.body = match rule {
        Some(BodyRule::JsonIn { .. }) if request.body.starts_with(b"--") => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let (start, end) = (text.find('{').unwrap(), text.rfind('}').unwrap());
            format!("{}{json}{}", &text[..start], &text[end + 1..]).into()
        }
        Some(BodyRule::JsonIn { field }) => {
            let mut pairs = pairs(&request.body);
            replaced(&mut pairs, field, Some(&json));
            written(&pairs)
        }
        _ => json.into(),
    };
}

/// Another text of the same length: a character of everything in it that may be a signature is changed.
pub(crate) fn forged(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let is_written = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let mut start = 0;
    let mut places = Vec::new();
    for end in 0..=bytes.len() {
        if bytes.get(end).is_some_and(is_written) {
            continue;
        }
        if end - start >= 20 {
            places.push(start + (end - start) / 2);
        }
        start = end + 1;
    }
    if places.is_empty() {
        places.push(bytes.len() / 2);
    }
    for place in places {
        bytes[place] = if bytes[place] == b'0' { b'1' } else { b'0' };
    }
    String::from_utf8(bytes).unwrap()
}
