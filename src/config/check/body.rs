//! `body`: how a source reads what it takes in.

use super::context::{Checker, string};
use crate::body::xml::{NAMES_MAX, XmlNames, XmlPath};
use crate::body::{BodyRule, Document};
use crate::diag::code::Code;
use crate::syntax::Node;
use crate::verify::scheme::plain_members;

impl Checker {
    pub(super) fn body_rule(&mut self, node: &Node) -> Option<BodyRule> {
        if let Some(word) = node.as_text() {
            return match word.text.as_str() {
                "json" => Some(BodyRule::Json),
                "form" => Some(BodyRule::Form),
                "text" => Some(BodyRule::Text),
                "binary" => Some(BodyRule::Binary),
                "jwt" => Some(BodyRule::Jwt),
                _ => None,
            };
        }
        if let (Some(document), None) = (node.pair("as"), node.get("base64_in")) {
            self.error(
                Code::InvalidValue,
                document.key_span,
                "`as` says what base64 holds, and there is no `base64_in`",
                "remove `as`",
            );
            return None;
        }
        if let Some(names) = node.get("xml") {
            return self.xml(names).map(|names| BodyRule::Xml { names });
        }
        if let Some(field) = node.get("json_in") {
            let field_name = string(node, "json_in")?;
            if field_name.is_empty() {
                self.error(
                    Code::InvalidValue,
                    field.span,
                    "a field of a form has a name",
                    "write the field that holds the JSON, such as `payload`",
                );
                return None;
            }
            return Some(BodyRule::JsonIn { field: field_name });
        }
        let place = node.get("base64_in")?;
        let path = string(node, "base64_in")?;
        let document = match node.get("as") {
            None => Some(Document::Json),
            Some(document) => match document.as_text().map(|word| word.text.as_str()) {
                Some("json") => Some(Document::Json),
                Some("text") => Some(Document::Text),
                Some(_) => None,
                None => {
                    let names = document.get("xml").and_then(|names| self.xml(names));
                    names.map(|names| Document::Xml { names })
                }
            },
        };
        let Some(members) = plain_members(&path) else {
            self.error(
                Code::InvalidValue,
                place.span,
                format!("`{path}` is no place for `base64_in`"),
                "write a path of plain members to the one text that is base64: `$.message.data`",
            );
            return None;
        };
        let path = members.into_iter().map(str::to_owned).collect();
        Some(BodyRule::Base64In { path, document: document? })
    }

    fn xml(&mut self, node: &Node) -> Option<XmlNames> {
        let pairs = node.as_map()?;
        if pairs.is_empty() || pairs.len() > NAMES_MAX {
            self.error(
                Code::InvalidValue,
                node.span,
                match pairs.is_empty() {
                    true => "of this XML nothing is read".to_owned(),
                    false => format!("`xml` names more than {NAMES_MAX} places"),
                },
                "name what the route needs: `{ kind: /notification/kind }`",
            );
            return None;
        }
        let mut names = Vec::new();
        let mut faulty = false;
        for pair in pairs {
            let text = &pair.value.as_text()?.text;
            match XmlPath::parse(text) {
                Ok(path) => names.push((pair.key.text.clone(), path)),
                Err(help) => {
                    faulty = true;
                    let message = format!("`{text}` is no path into XML");
                    self.error(Code::InvalidValue, pair.value.span, message, help);
                }
            }
        }
        (!faulty).then_some(XmlNames(names))
    }
}
