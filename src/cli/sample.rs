//! A payload from a file → the notification as a source's provider would send it, headers and path filled in as far as the
//! source's own rules tell. What `send` signs and POSTs and `try` looks at.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use url::Url;

use crate::body::BodyRule;
use crate::config::{IdRule, Route, RouteSet, Source};
use crate::extract::{Extraction, From};
use crate::name::RouteName;
use crate::simulate::provider::Notification;
use crate::verify::handshake::Handshake;
use crate::verify::text::Selector;
use crate::world::World;

#[derive(clap::Args, Debug)]
pub struct SampleArgs {
    /// The route
    pub route: String,
    /// The payload, as the provider sends it: the whole POST, also where the source splits it [default: the file in payloads/ that is named after the route]
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
    /// A header of the request; may be repeated
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    pub header: Vec<(HeaderName, HeaderValue)>,
    /// A `{name}` part of the source's path; may be repeated
    #[arg(long = "path", value_name = "NAME=VALUE", value_parser = assignment)]
    pub path: Vec<(String, String)>,
    /// A query parameter; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub query: Vec<(String, String)>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME:VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("`{}` is no header name", name.trim()))?;
    let value = value
        .trim()
        .parse()
        .map_err(|_| "the value has characters that no header takes".to_owned())?;
    Ok((name, value))
}

pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A request of a route's source before it is signed.
#[derive(Debug)]
pub struct Sample {
    pub notification: Notification,
    /// The `{name}` parts with their values, in order.
    pub path: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    /// The source's path with its parts filled in and the query.
    pub target: String,
}

/// The route that is meant and its source, or an error that names those there are.
pub fn find<'a>(set: &'a RouteSet, name: &str) -> anyhow::Result<(&'a Route, &'a Source)> {
    let Some(route) = set.routes.get(&RouteName::from(name)) else {
        let names: Vec<&str> = set.routes.keys().map(RouteName::as_str).collect();
        bail!("there is no route `{name}`; there are: {}", names.join(", "));
    };
    let source = set.sources.get(&route.source).context("a checked route has a checked source")?;
    Ok((route, source))
}

/// Folders of a configuration in which the sample of a route is looked for, by the route's name.
const FOLDERS: [&str; 2] = ["payloads", "examples/payloads"];

/// Fills in what the arguments leave out. `root` is the configuration folder.
pub fn compose(
    args: &SampleArgs,
    root: &Path,
    route: &Route,
    source: &Source,
    world: &World,
) -> anyhow::Result<Sample> {
    let Some(file) = args.payload.clone().or_else(|| payload_of(root, &route.name)) else {
        bail!(
            "there is no sample of what the provider sends: give one by `--payload FILE`, or keep it as {}",
            root.join(FOLDERS[0]).join(route.name.as_str()).with_extension("json").display()
        );
    };
    let body = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let body = in_its_form(source.body.as_ref(), body);
    let id = world.random.uuid_v7(world.clock.now()).to_string();
    let mut headers = usual_headers(route, source, &body, &id)?;
    for (name, value) in &args.header {
        headers.insert(name.clone(), value.clone());
    }

    let method = source.methods.first().context("a checked source has a method")?.clone();
    placed(args, source, method, headers, body, id)
}

/// A request of a source that is to become a challenge: the file of `--payload` where one is given, and otherwise as little
/// of a body as the handshake and the scheme can be put into.
pub fn of_handshake(
    args: &SampleArgs,
    source: &Source,
    handshake: &Handshake,
    world: &World,
) -> anyhow::Result<Sample> {
    let method = handshake.when.method.as_ref().or(source.methods.first());
    let method = method.context("a checked source has a method")?.clone();
    let places = handshake.places();
    let has = |is_such: fn(&Selector) -> bool| places.iter().any(is_such);
    let takes_body = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&method);
    let body = match &args.payload {
        Some(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None if has(|at| matches!(at, Selector::Form(_))) => Vec::new(),
        None if takes_body || has(|at| matches!(at, Selector::Json(_))) => b"{}".to_vec(),
        None => Vec::new(),
    };
    let body = in_its_form(source.body.as_ref(), body);
    let mut headers = HeaderMap::new();
    let is_media_wanted = has(|at| match at {
        Selector::ContentType => true,
        Selector::Header(name) => name.eq_ignore_ascii_case("content-type"),
        _ => false,
    });
    if !is_media_wanted && (!body.is_empty() || has(|at| matches!(at, Selector::Form(_)))) {
        let media = match has(|at| matches!(at, Selector::Form(_))) && body.is_empty() {
            true => "application/x-www-form-urlencoded".to_owned(),
            false => content_type(source.body.as_ref(), &body),
        };
        let media = HeaderValue::from_str(&media);
        headers
            .insert(CONTENT_TYPE, media.context("the boundary of the payload cannot be a header")?);
    }
    for (name, value) in &args.header {
        headers.insert(name.clone(), value.clone());
    }
    let id = world.random.uuid_v7(world.clock.now()).to_string();
    placed(args, source, method, headers, body, id)
}

fn placed(
    args: &SampleArgs,
    source: &Source,
    method: Method,
    headers: HeaderMap,
    body: Vec<u8>,
    id: String,
) -> anyhow::Result<Sample> {
    let path = parts(&source.path)
        .map(|part| match args.path.iter().find(|(name, _)| name == part) {
            Some((_, value)) => Ok((part.to_owned(), value.clone())),
            None => bail!(
                "the source's path {} has a part `{part}`: give it by `--path {part}=VALUE`",
                source.path
            ),
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let target = target(&source.path, &path, &args.query)?;
    let notification =
        Notification { method, path: path.clone(), headers, body: Bytes::from(body), id };
    Ok(Sample { notification, path, query: args.query.clone(), target })
}

/// The headers that a source's provider would send with `body`: the content type, the id's header with `id`, the type's
/// header with the first type that the route takes by name.
pub fn usual_headers(
    route: &Route,
    source: &Source,
    body: &[u8],
    id: &str,
) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_str(&content_type(source.body.as_ref(), body))
            .context("the boundary of the payload cannot be a header")?,
    );
    let id_header = source.event.id.iter().find_map(|rule| match rule {
        IdRule::Extract(rule) => header_of(rule),
        IdRule::HashBody | IdRule::Hash(_) | IdRule::Arrival => None,
    });
    if let (Some(name), Ok(value)) = (id_header, HeaderValue::from_str(id)) {
        headers.insert(name, value);
    }
    let event_type = route.on.include.iter().find(|glob| !glob.contains('*'));
    if let (Some(name), Some(event_type)) =
        (source.event.type_.as_ref().and_then(header_of), event_type)
    {
        headers.insert(
            name,
            HeaderValue::from_str(event_type).context("the type in `on` cannot be a header")?,
        );
    }
    Ok(headers)
}

/// `payloads/ROUTE.*`, the first by name.
fn payload_of(root: &Path, route: &RouteName) -> Option<PathBuf> {
    FOLDERS.iter().find_map(|folder| {
        let entries = fs::read_dir(root.join(folder)).ok()?;
        let is_its = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == route.as_str());
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_its).min()
    })
}

fn header_of(rule: &Extraction) -> Option<HeaderName> {
    match &rule.from {
        From::Header(name) => name.parse().ok(),
        From::Path(_) | From::Query(_) | From::Form(_) | From::PathPart(_) | From::Value(_) => None,
    }
}

/// A JSON document whose place is a field of a form is put there; what is a form already stays as it is.
fn in_its_form(rule: Option<&BodyRule>, body: Vec<u8>) -> Vec<u8> {
    let Some(BodyRule::JsonIn { field }) = rule else { return body };
    let Some(document) = std::str::from_utf8(&body).ok().filter(|_| is_json(&body)) else {
        return body;
    };
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair(field, document.trim());
    form.finish().into_bytes()
}

fn content_type(rule: Option<&BodyRule>, body: &[u8]) -> String {
    const FORM: &str = "application/x-www-form-urlencoded";
    let may_be_form = match rule {
        None | Some(BodyRule::Form | BodyRule::JsonIn { .. } | BodyRule::Base64In { .. }) => true,
        Some(
            BodyRule::Json
            | BodyRule::Text
            | BodyRule::Binary
            | BodyRule::Jwt
            | BodyRule::Xml { .. },
        ) => false,
    };
    if may_be_form && let Some(boundary) = boundary(body) {
        return format!("multipart/form-data; boundary=\"{boundary}\"");
    }
    let plain = match rule {
        Some(BodyRule::Form | BodyRule::JsonIn { .. }) => FORM,
        Some(BodyRule::Text) => "text/plain; charset=utf-8",
        Some(BodyRule::Json) => "application/json",
        Some(BodyRule::Binary) => "application/octet-stream",
        Some(BodyRule::Jwt) => "application/jwt",
        Some(BodyRule::Xml { .. }) => "application/xml",
        Some(BodyRule::Base64In { .. }) | None if is_json(body) => "application/json",
        Some(BodyRule::Base64In { .. }) => FORM,
        None if is_form(body) => FORM,
        None => "application/octet-stream",
    };
    plain.to_owned()
}

fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// `a=1&b=2`: one line of pairs, each with a name.
fn is_form(body: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_graphic();
    body.iter().all(plain)
        && body
            .split(|byte| *byte == b'&')
            .all(|pair| pair.iter().position(|byte| *byte == b'=').is_some_and(|assign| assign > 0))
}

/// That of a multipart form, which a file cannot name otherwise: its first line.
fn boundary(body: &[u8]) -> Option<&str> {
    let end = body.windows(2).position(|two| two == b"\r\n")?;
    let line = std::str::from_utf8(body.get(..end)?).ok()?;
    let boundary = line.strip_prefix("--")?;
    let sound = |c: char| c.is_ascii_graphic() && !"\"\\".contains(c);
    let rest = body.get(end + 2..)?.get(..20)?;
    let is_part = rest.to_ascii_lowercase().starts_with(b"content-");
    (is_part && !boundary.is_empty() && boundary.chars().all(sound)).then_some(boundary)
}

/// The names in `/hooks/{shop}/{kind}`.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name.trim_start_matches('*'))
}

fn target(
    path: &str,
    parts: &[(String, String)],
    query: &[(String, String)],
) -> anyhow::Result<String> {
    // The host is a stand-in; only path and query leave here. `Url` does the encoding.
    let mut url = Url::parse("http://source.invalid/").context("a plain URL")?;
    {
        let mut segments =
            url.path_segments_mut().map_err(|()| anyhow::anyhow!("an http URL has segments"))?;
        segments.clear();
        for segment in path.split('/').skip(1) {
            let mut filled = segment.to_owned();
            for (name, value) in parts {
                filled = filled.replace(&format!("{{{name}}}"), value);
            }
            segments.push(&filled);
        }
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_are_filled_in_and_encoded() {
        assert_eq!(parts("/hooks/{shop}/x-{kind}").collect::<Vec<_>>(), ["shop", "kind"]);
        let values = [("shop".to_owned(), "a b/c".to_owned())];
        let query = [("t".to_owned(), "1&2".to_owned())];
        assert_eq!(target("/hooks/{shop}", &values, &query).unwrap(), "/hooks/a%20b%2Fc?t=1%262");
    }

    #[test]
    fn a_payload_is_sent_as_its_source_reads_it() {
        let check = |rule: Option<&BodyRule>, file: &str, body: &str, expected: &str| {
            let made = in_its_form(rule, file.into());
            assert_eq!((&*content_type(rule, &made), made), (expected, body.into()), "{rule:?}");
        };
        let form = "application/x-www-form-urlencoded";
        let parts = "--b7\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--b7--";
        let multipart = "multipart/form-data; boundary=\"b7\"";
        let json_in = Some(&BodyRule::JsonIn { field: "p".to_owned() });
        check(json_in, "{\"a\": 1}\n", "p=%7B%22a%22%3A+1%7D", form);
        check(json_in, "p=%7B%7D", "p=%7B%7D", form);
        check(json_in, parts, parts, multipart);
        check(Some(&BodyRule::Form), parts, parts, multipart);
        check(Some(&BodyRule::Form), "a=1", "a=1", form);
        check(None, parts, parts, multipart);
        check(None, "--\r\nx", "--\r\nx", "application/octet-stream");
        check(None, "a=1&b=%20", "a=1&b=%20", form);
        for text in ["a=1 b", "=1", "a", "a=1&", ""] {
            check(None, text, text, "application/octet-stream");
        }
        let path = vec!["d".to_owned()];
        let base64_in = Some(&BodyRule::Base64In { path, document: crate::body::Document::Json });
        check(base64_in, "{}", "{}", "application/json");
        check(base64_in, "d=e30", "d=e30", form);
        check(Some(&BodyRule::Jwt), "a.b.c", "a.b.c", "application/jwt");
    }

    #[test]
    fn arguments_are_taken_apart_at_the_first_sign() {
        assert_eq!(header("X-Url: http://a").unwrap().1, "http://a");
        assert_eq!(assignment("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(header("no colon").is_err());
        assert!(header("bad name: x").is_err());
    }
}
