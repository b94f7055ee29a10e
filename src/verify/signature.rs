//! From the text of a signature header to the signatures in it, and back.

use base64::Engine;

use super::request::{Found, once};
use super::scheme::{BASE64, BASE64_URL, Rejection, Signature, SignatureEncoding, SignatureSyntax};

/// What a signature header says.
#[derive(Debug, PartialEq)]
pub(super) struct Parsed<'a> {
    /// Every readable signature of the wanted kind; at least one.
    pub(super) candidates: Vec<Vec<u8>>,
    /// The other pairs, in order.
    fields: Vec<(&'a str, &'a str)>,
    /// What stands where the syntax has the time.
    times: Vec<&'a str>,
}

impl<'a> Parsed<'a> {
    /// The pair with this key, if there is exactly one.
    pub(super) fn field(&self, key: &str) -> Found<&'a str> {
        once(self.fields.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    pub(super) fn time(&self) -> Found<&'a str> {
        once(self.times.iter().copied())
    }
}

/// Several header lines are one list only where the list is split by commas: that is how HTTP itself joins lines
/// (RFC 9110, 5.3). Anywhere else a second line is a second opinion, and the request is refused.
pub(super) fn join<'a>(
    lines: &[&'a str],
    syntax: &SignatureSyntax,
) -> Option<std::borrow::Cow<'a, str>> {
    match (lines, syntax) {
        ([line], _) => Some((*line).into()),
        (
            [_, ..],
            SignatureSyntax::Pairs { separator: ',', .. }
            | SignatureSyntax::Tagged { separator: ',', .. }
            | SignatureSyntax::List { separator: ',', .. },
        ) => Some(lines.join(",").into()),
        _ => None,
    }
}

pub(super) fn parse<'a>(text: &'a str, signature: &Signature) -> Result<Parsed<'a>, Rejection> {
    let mut found: Vec<&str> = Vec::new();
    let (mut fields, mut times) = (Vec::new(), Vec::new());
    match &signature.syntax {
        SignatureSyntax::Prefix(prefix) => {
            found.extend(text.trim().strip_prefix(prefix.as_str()));
        }
        SignatureSyntax::Pairs { separator, assign, signature_key, timestamp_key } => {
            for item in text.split(*separator) {
                // At the first sign only: base64 ends in `=` too.
                let Some((key, value)) = item.trim().split_once(*assign) else { continue };
                // No encoding has quotation marks, and some senders put values in them.
                let (key, value) = (key.trim(), value.trim().trim_matches('"'));
                if key == signature_key {
                    found.push(value)
                } else {
                    fields.push((key, value))
                }
                if timestamp_key.as_deref() == Some(key) {
                    times.push(value);
                }
            }
        }
        SignatureSyntax::List { separator, prefix } => {
            let items = text.split(*separator);
            found.extend(items.filter_map(|item| item.trim().strip_prefix(prefix.as_str())));
        }
        SignatureSyntax::Positional { separator } => {
            let mut items = text.split(*separator).map(str::trim);
            times.extend(items.next());
            found.extend(items);
        }
        SignatureSyntax::Tagged { separator, tag } => {
            // `v1,<base64>`: the tag ends where the base64 begins, at a comma. A comma that also separates items
            // (`v1=a,v1=b`) leaves `=` to end the tag.
            let assign = if *separator == ',' { '=' } else { ',' };
            for item in text.split(*separator) {
                match item.trim().split_once(assign) {
                    Some((name, value)) if name.trim() == tag => found.push(value.trim()),
                    _ => {}
                }
            }
        }
    }
    let candidates: Vec<Vec<u8>> =
        found.into_iter().filter_map(|text| decode(text, signature.encoding)).collect();
    if candidates.is_empty() {
        return Err(Rejection::MalformedSignature);
    }
    Ok(Parsed { candidates, fields, times })
}

fn decode(text: &str, encoding: SignatureEncoding) -> Option<Vec<u8>> {
    let bytes = match encoding {
        SignatureEncoding::Hex => hex::decode(text).ok()?,
        SignatureEncoding::Base64 => BASE64.decode(text).ok()?,
        SignatureEncoding::Base64Url => BASE64_URL.decode(text).ok()?,
    };
    (!bytes.is_empty()).then_some(bytes)
}

/// The value that carries `mac`, as a sender writes it.
pub(super) fn write(mac: &[u8], signature: &Signature, timestamp: Option<&str>) -> String {
    let text = match signature.encoding {
        SignatureEncoding::Hex => hex::encode(mac),
        SignatureEncoding::Base64 => base64::engine::general_purpose::STANDARD.encode(mac),
        SignatureEncoding::Base64Url => {
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac)
        }
    };
    match &signature.syntax {
        SignatureSyntax::Prefix(prefix) | SignatureSyntax::List { prefix, .. } => {
            format!("{prefix}{text}")
        }
        SignatureSyntax::Positional { separator } => {
            format!("{}{separator}{text}", timestamp.unwrap_or_default())
        }
        SignatureSyntax::Pairs { separator, assign, signature_key, timestamp_key } => {
            match (timestamp_key, timestamp) {
                (Some(key), Some(time)) => {
                    format!("{key}{assign}{time}{separator}{signature_key}{assign}{text}")
                }
                _ => format!("{signature_key}{assign}{text}"),
            }
        }
        SignatureSyntax::Tagged { separator, tag } => {
            let assign = if *separator == ',' { '=' } else { ',' };
            format!("{tag}{assign}{text}")
        }
    }
}
