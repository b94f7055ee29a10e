//! URLs: every `{{ }}` is percent-encoded as one segment or value.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::context::Context;
use super::names::{Fault, FaultKind, Names, Reads};
use super::piece::{self, Body, Piece};
use super::{RenderError, guarded};

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `text` as one segment or value of a URL.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A whole URL, or a path for a destination.
#[derive(Debug)]
pub struct UrlTemplate {
    text: String,
    reads: Reads,
    pieces: Vec<Piece>,
}

impl UrlTemplate {
    /// The template and its warnings, or its faults.
    pub fn compile(text: &str, names: &Names) -> Result<(Self, Vec<Fault>), Vec<Fault>> {
        let cut = piece::cut(text, names)?;
        let Body::Pieces(pieces) = cut.body else {
            return Err(vec![Fault {
                kind: FaultKind::Syntax,
                message: "a URL holds no `{% %}`".to_owned(),
                range: 0..text.len(),
                help: Some("write `{{ a if condition else b }}`".to_owned()),
            }]);
        };
        let mut faults = Vec::new();
        let mut warnings = Vec::new();
        for piece in &pieces {
            let Piece::Compiled(compiled) = piece else { continue };
            let fault = |kind, message: &str, help: &str| Fault {
                kind,
                message: message.to_owned(),
                range: compiled.range.clone(),
                help: Some(help.to_owned()),
            };
            if compiled.optional {
                faults.push(fault(
                    FaultKind::Syntax,
                    "`optional` cannot leave out a part of a URL",
                    "put the parameter under `query`, or give a `default`",
                ));
            }
            if compiled.raw_url {
                warnings.push(fault(
                    FaultKind::RawUrl,
                    "`raw_url` puts the value into the URL as it is, slashes and all",
                    "leave it out: then the value is one segment or one parameter",
                ));
            }
        }
        faults.extend(host_faults(&pieces));
        let url = Self { text: text.to_owned(), reads: cut.reads, pieces };
        if faults.is_empty() { Ok((url, warnings)) } else { Err(faults) }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// The text before the first expression.
    pub fn literal_start(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text,
            Some(Piece::Compiled(_)) | None => "",
        }
    }

    pub fn render(&self, context: &Context) -> Result<String, RenderError> {
        guarded(&self.reads, context, |context| self.rendered(context))
    }

    fn rendered(&self, context: &Context) -> Result<String, RenderError> {
        let authority_end = self.authority_end();
        let mut empty_at = Vec::new();
        let mut at_piece = 0;
        let url = piece::join(&self.pieces, context, |compiled, text, out| {
            at_piece += 1;
            if compiled.raw_url {
                if text.contains(['\r', '\n', '\t', '\\']) {
                    return Err(
                        compiled.error("the value holds a control character or `\\`".into())
                    );
                }
                out.push_str(&text);
                return Ok(());
            }
            if text.is_empty() {
                empty_at.push((out.len(), compiled.text.clone()));
            }
            if authority_end.is_some_and(|end| compiled.range.start < end)
                && (text.is_empty()
                    || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
            {
                let message = "a part of a host name may hold letters, digits and `-` alone";
                return Err(compiled.error(message.to_owned()));
            }
            out.push_str(&encode(&text));
            Ok(())
        })?
        .unwrap_or_default();
        check_segments(&url, &empty_at).map_err(|(message, expression)| RenderError {
            message,
            expression: expression.unwrap_or_else(|| self.text.clone()),
        })?;
        Ok(url)
    }

    /// Where `https://host:port` ends in the template's text.
    fn authority_end(&self) -> Option<usize> {
        authority(&self.text).map(|range| range.end)
    }
}

/// `host:port` of a whole URL, in bytes.
fn authority(text: &str) -> Option<std::ops::Range<usize>> {
    let start = text.find("://")? + 3;
    // What stands before must be a literal scheme: a `://` in a query is none.
    if !text.bytes().take(start - 3).all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let mut braces = 0_i32;
    let mut end = text.len();
    for (at, c) in text.char_indices().filter(|(at, _)| *at >= start) {
        match c {
            '{' => braces += 1,
            '}' => braces -= 1,
            '/' | '?' | '#' | '\\' if braces == 0 => {
                end = at;
                break;
            }
            _ => {}
        }
    }
    Some(start..end)
}

/// An expression may fill one label of the host where a literal domain follows; it never chooses the host.
fn host_faults(pieces: &[Piece]) -> Vec<Fault> {
    let mut literal = String::new();
    let mut faults = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(text) => literal.push_str(text),
            Piece::Compiled(compiled) => {
                let in_host = literal
                    .split_once("://")
                    .is_some_and(|(_, rest)| !rest.contains(['/', '?', '#', '\\']));
                let domain = match pieces.get(at + 1) {
                    Some(Piece::Literal(next)) => next
                        .strip_prefix('.')
                        .is_some_and(|next| next.starts_with(|c: char| c.is_ascii_alphanumeric())),
                    _ => false,
                };
                if in_host && !domain && !compiled.raw_url {
                    faults.push(Fault {
                        kind: FaultKind::Syntax,
                        message: "an expression cannot choose the host of a URL".to_owned(),
                        range: compiled.range.clone(),
                        help: Some(
                            "write the host, or one label before it: https://{{ path.shop }}.example.com/"
                                .to_owned(),
                        ),
                    });
                }
                literal.push('x');
            }
        }
    }
    faults
}

type SegmentFault = (String, Option<String>);

fn check_segments(url: &str, empty_at: &[(usize, String)]) -> Result<(), SegmentFault> {
    let path_start = authority(url).map_or(0, |range| range.end);
    let path_end = url
        .char_indices()
        .find(|(at, c)| *at >= path_start && matches!(c, '?' | '#'))
        .map_or(url.len(), |(at, _)| at);
    let path = url.get(path_start..path_end).unwrap_or_default();
    let mut at = path_start;
    for segment in path.split('/') {
        let decoded = percent_decode_str(segment).decode_utf8_lossy();
        if decoded == "." || decoded == ".." {
            return Err((format!("a path segment must not be `{decoded}`"), None));
        }
        if segment.is_empty()
            && let Some((_, expression)) = empty_at.iter().find(|(empty, _)| *empty == at)
        {
            return Err(("a path segment must not be empty".to_owned(), Some(expression.clone())));
        }
        at += segment.len() + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(text: &str, value: &str) -> Result<String, String> {
        let names = Names { roots: ["payload"].into(), ..Names::default() };
        let mut context = Context::new(jiff::Timestamp::UNIX_EPOCH, "");
        context.set("payload", &json!({ "a": value }));
        let (url, _) =
            UrlTemplate::compile(text, &names).map_err(|faults| faults[0].message.clone())?;
        url.render(&context).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_one_segment() {
        for (text, value, expected) in [
            ("/v1/{{ payload.a }}", "a/b c", Some("/v1/a%2Fb%20c")),
            ("/v1?x={{ payload.a }}", "a&b", Some("/v1?x=a%26b")),
            ("/v1?x={{ payload.a }}", "", Some("/v1?x=")),
            ("/v1?x={{ payload.a }}", "..", Some("/v1?x=..")),
            ("/v1/{{ payload.a }}", "..", None),
            ("/v1/.{{ payload.a }}", ".", None),
            ("/v1/%2e{{ payload.a }}", ".", None),
            ("/v1/{{ payload.a }}/x", "", None),
            ("/v1/{{ payload.b }}/x", "", None),
            ("/v1/../x", "", None),
            ("/v1/{{ payload.a | raw_url }}", "a/b", Some("/v1/a/b")),
            ("https://{{ payload.a }}.example.com/x", "shop", Some("https://shop.example.com/x")),
            ("https://{{ payload.a }}.example.com/x", "evil.com/", None),
            ("https://{{ payload.a }}/x", "shop", None),
            ("https://example.com{{ payload.a }}", "shop", None),
            ("https://u@{{ payload.a }}", "shop", None),
            ("", "", Some("")),
        ] {
            assert_eq!(render(text, value).ok().as_deref(), expected, "{text} {value:?}");
        }
    }

    #[test]
    fn raw_url_warns() {
        let names = Names { roots: ["payload"].into(), ..Names::default() };
        let (_, warnings) = UrlTemplate::compile("/{{ payload.a | raw_url }}", &names).unwrap();
        assert_eq!(warnings[0].kind, FaultKind::RawUrl);
    }

    proptest! {
        #[test]
        fn no_value_changes_host_or_segments(value in "[./\\\\%?#@:a-z0-9 2eE]{0,12}|\\PC{0,12}") {
            if let Ok(url) = render("https://example.com/a/{{ payload.a }}/b?c={{ payload.a }}", &value) {
                let url = ::url::Url::parse(&url).unwrap();
                prop_assert_eq!(url.host_str(), Some("example.com"));
                prop_assert_eq!(url.path_segments().unwrap().count(), 3);
                let pairs: Vec<_> = url.query_pairs().into_owned().collect();
                prop_assert_eq!(pairs, vec![("c".to_owned(), value.clone())]);
                prop_assert!(url.fragment().is_none());
            }
            if let Ok(url) = render("https://{{ payload.a }}.example.com/a", &value)
                && let Ok(url) = ::url::Url::parse(&url)
            {
                prop_assert!(url.host_str().unwrap().ends_with(".example.com"));
            }
        }
    }
}
