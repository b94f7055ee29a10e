//! Named texts out of XML. There is no DTD and no entity but those of the language itself, so a document says what it holds
//! and no more; names are compared without their namespaces.

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::form::add;

/// What is looked for, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct XmlNames(pub Vec<(String, XmlPath)>);

/// `/notification/kind`, `/notification/@id`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct XmlPath {
    /// From the root, by their local names.
    elements: Vec<String>,
    /// Of the last of them; otherwise its text is meant.
    attribute: Option<String>,
}

/// Names of one source: each is kept with every event.
pub const NAMES_MAX: usize = 64;
/// As in JSON.
const DEPTH_MAX: usize = 128;
/// Of one element: each is compared with all others.
const ATTRIBUTES_MAX: usize = 256;

impl XmlPath {
    /// The error says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err("a path starts at the root: `/notification/kind`".to_owned());
        };
        let (elements, attribute) = match path.split_once("/@") {
            Some((elements, attribute)) => (elements, Some(attribute)),
            None => (path, None),
        };
        let elements: Vec<&str> = elements.split('/').collect();
        if elements.len() > DEPTH_MAX {
            return Err(format!("a path has at most {DEPTH_MAX} elements"));
        }
        for name in elements.iter().copied().chain(attribute) {
            match name {
                "" => {
                    return Err(
                        "write the elements from the root on, each once: `/notification/kind`, `/notification/@id`"
                            .to_owned(),
                    );
                }
                _ if name.starts_with('@') => {
                    return Err("an attribute stands last, after its element: `/notification/@id`"
                        .to_owned());
                }
                _ if name.contains(':') => {
                    return Err(format!(
                        "names are compared without their namespaces: write `{}`",
                        name.rsplit(':').next().unwrap_or_default()
                    ));
                }
                _ if !name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c)) => {
                    return Err(format!(
                        "`{name}` is no name of an element: there are no wildcards and no conditions, only names"
                    ));
                }
                _ => {}
            }
        }
        Ok(Self {
            elements: elements.into_iter().map(str::to_owned).collect(),
            attribute: attribute.map(str::to_owned),
        })
    }
}

impl TryFrom<String> for XmlPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<XmlPath> for String {
    fn from(path: XmlPath) -> String {
        let mut text: String = path.elements.iter().flat_map(|name| ["/", name.as_str()]).collect();
        if let Some(attribute) = path.attribute {
            text.push_str("/@");
            text.push_str(&attribute);
        }
        text
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for XmlNames {
    fn from(names: [(&str, &str); N]) -> Self {
        let names = names.map(|(name, path)| (name.to_owned(), XmlPath::parse(path).unwrap()));
        Self(names.into())
    }
}

impl XmlNames {
    /// Name → text, a list where several stand at a path; what is not there is left out.
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Json, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut walk = Walk::new(self);
        let mut reader = Reader::from_str(text);
        loop {
            let event = reader.read_event().map_err(|error| error.to_string())?;
            match event {
                Event::Start(start) => walk.start(&start)?,
                Event::Empty(start) => {
                    walk.start(&start)?;
                    walk.end();
                }
                Event::End(_) => walk.end(),
                Event::Text(text) => walk.text(&text.xml10_content())?,
                Event::CData(text) if walk.depth > 0 => walk.text(&text.xml10_content())?,
                Event::CData(_) => return Err("text stands outside of the root element".to_owned()),
                Event::GeneralRef(reference) => {
                    let character =
                        reference.resolve_char_ref().map_err(|error| error.to_string())?;
                    match (character, resolve_xml_entity(&reference)) {
                        (Some(character), _) => walk.text(character.encode_utf8(&mut [0; 4]))?,
                        (None, Some(text)) => walk.text(text)?,
                        (None, None) => {
                            return Err(format!(
                                "the entity `&{};` is not one of XML itself",
                                &*reference
                            ));
                        }
                    }
                }
                Event::Decl(declaration) => {
                    let encoding = declaration.encoding().transpose();
                    let encoding = encoding.map_err(|error| error.to_string())?;
                    let plain = |name: &str| {
                        name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("us-ascii")
                    };
                    if let Some(other) = encoding.filter(|name| !plain(name)) {
                        return Err(format!("its encoding is `{other}`, and only UTF-8 is read"));
                    }
                }
                Event::DocType(_) => {
                    return Err(
                        "it has a document type (`<!DOCTYPE`), which is never read".to_owned()
                    );
                }
                Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => return walk.done(),
            }
        }
    }
}

struct Walk<'p> {
    names: &'p [(String, XmlPath)],
    /// Of each path: how many of its elements are open now.
    open: Vec<usize>,
    /// Of each path: the text so far of the element at its end, while that is open.
    texts: Vec<Option<String>>,
    found: Vec<Vec<String>>,
    depth: usize,
    /// There was a root.
    rooted: bool,
}

impl<'p> Walk<'p> {
    fn new(names: &'p XmlNames) -> Self {
        let count = names.0.len();
        Self {
            names: &names.0,
            open: vec![0; count],
            texts: vec![None; count],
            found: vec![Vec::new(); count],
            depth: 0,
            rooted: false,
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.depth == 0 && self.rooted {
            return Err("it has more than one root element".to_owned());
        }
        if self.depth == DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} elements"));
        }
        self.rooted = true;
        let mut attributes = Vec::new();
        for attribute in start.attributes() {
            if attributes.len() == ATTRIBUTES_MAX {
                return Err(format!("an element has more than {ATTRIBUTES_MAX} attributes"));
            }
            let attribute = attribute.map_err(|error| error.to_string())?;
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| error.to_string())?;
            attributes.push((attribute.key, value));
        }
        let local = start.local_name();
        let local = local.as_ref();
        for (index, (_, path)) in self.names.iter().enumerate() {
            let is_next = self.open[index] == self.depth
                && path.elements.get(self.depth).is_some_and(|name| name == local);
            if !is_next {
                continue;
            }
            self.open[index] += 1;
            if path.elements.len() > self.open[index] {
                continue;
            }
            match &path.attribute {
                None => self.texts[index] = Some(String::new()),
                Some(wanted) => {
                    let named = attributes.iter().filter(|(key, _)| {
                        key.as_namespace_binding().is_none() && key.local_name().as_ref() == wanted
                    });
                    self.found[index].extend(named.map(|(_, value)| value.trim().to_owned()));
                }
            }
        }
        self.depth += 1;
        Ok(())
    }

    /// Of an element counts what stands in itself, not in those within it.
    fn text(&mut self, text: &str) -> Result<(), String> {
        if self.depth == 0 {
            return match text.trim_ascii().is_empty() {
                true => Ok(()),
                false => Err("text stands outside of the root element".to_owned()),
            };
        }
        for (index, (_, path)) in self.names.iter().enumerate() {
            if path.elements.len() == self.depth
                && let Some(so_far) = &mut self.texts[index]
            {
                so_far.push_str(text);
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        for index in 0..self.names.len() {
            if self.open[index] <= self.depth {
                continue;
            }
            self.open[index] = self.depth;
            if let Some(text) = self.texts[index].take() {
                self.found[index].push(text.trim().to_owned());
            }
        }
    }

    fn done(self) -> Result<Json, String> {
        if !self.rooted {
            return Err("it has no root element".to_owned());
        }
        if self.depth > 0 {
            return Err("it ends in the middle".to_owned());
        }
        let mut names = Map::new();
        for ((name, _), found) in self.names.iter().zip(self.found) {
            for text in found {
                add(&mut names, name.clone(), Json::String(text));
            }
        }
        Ok(Json::Object(names))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn names() -> XmlNames {
        XmlNames::from([
            ("kind", "/n/kind"),
            ("id", "/n/@id"),
            ("sku", "/n/items/item/@sku"),
            ("item", "/n/items/item"),
        ])
    }

    fn check(text: &str, expected: Option<Json>) {
        let read = names().read(text.as_bytes());
        assert_eq!(read.clone().ok(), expected, "{read:?} {text}");
    }

    #[test]
    fn texts_stand_at_their_paths() {
        check(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c --><n id='a&amp;b'>\n <kind> sub\u{fc} </kind><kinds>x</kinds>\n</n>\n",
            Some(json!({"kind": "sub\u{fc}", "id": "a&b"})),
        );
        check(
            "<x:n xmlns:x='u' xmlns:id='v'><x:items><item sku='1'>a</item><y:item y:sku='2' xmlns:y='w'>b</y:item><item/></x:items></x:n>",
            Some(json!({"sku": ["1", "2"], "item": ["a", "b", ""]})),
        );
        check(
            "<n><kind>a<b>no</b>&lt;&#x41;&#66;<![CDATA[<&]]></kind><items><kind>no</kind></items></n>",
            Some(json!({"kind": "a<AB<&"})),
        );
        check("\u{feff}<n/>", Some(json!({})));
        check("<m><n><kind>no</kind></n><kind>no</kind></m>", Some(json!({})));
    }

    #[test]
    fn what_is_no_document_is_said() {
        for text in [
            "",
            "  ",
            "text",
            "<n>",
            "<n></m>",
            "</n>",
            "<n/>x",
            "<n/><n/>",
            "<n><![CDATA[",
            "<![CDATA[x]]><n/>",
            "<n>&nbsp;</n>",
            "<n>&</n>",
            "<n>&#xD800;</n>",
            "<n id='1' id='2'/>",
            "<n id=1/>",
            "<n id='&x;'/>",
            "<!DOCTYPE n><n/>",
            "<!DOCTYPE n [<!ENTITY a \"b\">]><n>&a;</n>",
            "<?xml version='1.0' encoding='ISO-8859-1'?><n/>",
        ] {
            check(text, None);
        }
        assert!(names().read(b"<n>\xff</n>").is_err());
    }

    #[test]
    fn documents_are_bounded() {
        let nested = |deep: usize| format!("{}{}", "<n>".repeat(deep), "</n>".repeat(deep));
        assert!(names().read(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert!(names().read(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        let wide = |count: usize| {
            let attributes: String = (0..count).map(|number| format!(" a{number}=''")).collect();
            format!("<n{attributes}/>")
        };
        assert!(names().read(wide(ATTRIBUTES_MAX).as_bytes()).is_ok());
        assert!(names().read(wide(ATTRIBUTES_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn paths_are_names_from_the_root() {
        for text in ["/a", "/a/b-c.d_1", "/a/@b", "/gr\u{fc}n/b/@c"] {
            assert_eq!(String::from(XmlPath::parse(text).unwrap()), text);
        }
        for text in [
            "",
            "a",
            "/",
            "//a",
            "/a/",
            "/@a",
            "/a/@",
            "/a/@b/c",
            "/a/@b/@c",
            "/x:a",
            "/*",
            "/a[1]",
            "/a b",
            "/a/text()",
        ] {
            assert!(XmlPath::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            pieces in prop::collection::vec(prop::sample::select(vec![
                "<n>", "</n>", "<kind>", "</kind>", "<items>", "</items>", "<item sku='1'>", "</item>", "<item/>", "<", ">", "&",
                "&lt;", "&#0;", "&#65;", "<![CDATA[", "]]>", "<?xml version='1.0'?>", "<?p ?>", "<!--", "-->", "<!DOCTYPE", "'",
                "\"", "=", "x", " ", "\u{fc}", "]", "[", "/",
            ]), 0..40),
        ) {
            drop(names().read(&bytes));
            drop(names().read(pieces.concat().as_bytes()));
        }

        #[test]
        fn any_text_comes_back(text in "[a-z<>&\"' \u{fc}]{0,20}") {
            let body = format!("<n><kind>{}</kind></n>", quick_xml::escape::escape(text.as_str()));
            prop_assert_eq!(names().read(body.as_bytes()), Ok(json!({"kind": text.trim()})));
        }
    }
}
