//! The JSON Schemas of the language (draft 07, which editors' YAML servers read), made from the tables of keys: they
//! hold only what works.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::shape::{Key, Mapping, Names, Shape, Word, provider, route, server, source};

/// What a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    Route,
    Config,
    Source,
    Provider,
}

/// The schema as it stands in `schemas/`, with a final newline.
pub fn text(document: Document) -> String {
    let (table, title) = match document {
        Document::Route => (&route::ROUTE, "A route of router"),
        Document::Config => (&server::CONFIG, "router.yaml"),
        Document::Source => (&source::SOURCE_FILE, "A shared source of router"),
        Document::Provider => (&provider::PROVIDER, "A provider preset of router"),
    };
    let mut schemas = Schemas { definitions: BTreeMap::new() };
    let Json::Object(body) = schemas.mapping(table) else {
        unreachable!("a mapping's schema is an object")
    };
    let mut root = Map::new();
    root.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
    root.insert("title".to_owned(), json!(title));
    root.extend(body);
    root.insert(
        "definitions".to_owned(),
        schemas.definitions.into_iter().collect::<Map<_, _>>().into(),
    );
    format!("{:#}\n", Json::Object(root))
}

/// Mappings stand once under `definitions`, by name: the language's shapes go in circles.
struct Schemas {
    definitions: BTreeMap<String, Json>,
}

impl Schemas {
    fn mapping(&mut self, table: &'static Mapping) -> Json {
        let built = || table.keys.iter().filter(|key| key.built);
        let properties: Map<String, Json> =
            built().map(|key| (key.name.to_owned(), self.property(key))).collect();
        let required: Vec<&str> = built().filter(|key| key.required).map(|key| key.name).collect();
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        schema.insert("properties".to_owned(), properties.into());
        schema.insert("additionalProperties".to_owned(), json!(false));
        if !required.is_empty() {
            schema.insert("required".to_owned(), json!(required));
        }
        if !table.one_of.is_empty() {
            let choices: Vec<Json> =
                table.one_of.iter().map(|name| json!({ "required": [name] })).collect();
            schema.insert("oneOf".to_owned(), choices.into());
        }
        schema.into()
    }

    fn property(&mut self, key: &Key) -> Json {
        let mut description = key.doc.to_owned();
        if !key.default.is_empty() {
            description.push_str(&format!("\nDefault: {}", key.default));
        }
        let schema = self.shape(&key.shape);
        // Draft 07 ignores what stands beside `$ref`.
        let mut property = Map::new();
        property.insert("description".to_owned(), json!(description));
        match schema {
            Json::Object(object) if !object.contains_key("$ref") => property.extend(object),
            reference => {
                property.insert("allOf".to_owned(), json!([reference]));
            }
        }
        property.into()
    }

    fn shape(&mut self, shape: &Shape) -> Json {
        match *shape {
            Shape::Text => json!({ "type": "string" }),
            Shape::Pattern(pattern, _) => json!({ "type": "string", "pattern": pattern }),
            Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
            Shape::Condition => json!({ "type": ["string", "boolean"] }),
            Shape::JsonPath => json!({ "type": "string", "pattern": "^\\$" }),
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::True => json!({ "const": true }),
            Shape::False => json!({ "const": false }),
            Shape::Count(least, most) => {
                json!({ "type": "integer", "minimum": least, "maximum": most })
            }
            Shape::Factor(least) => json!({ "type": "number", "minimum": least, "maximum": 1000 }),
            Shape::Duration => json!({
                "type": "string",
                "pattern": "^([0-9_]+w)?([0-9_]+d)?([0-9_]+h)?([0-9_]+m)?([0-9_]+s)?([0-9_]+ms)?$",
                "minLength": 2
            }),
            Shape::Size => json!({
                "anyOf": [
                    { "type": "integer", "minimum": 0 },
                    { "type": "string", "pattern": "^[0-9_]+ *([kKmMgG]i?)?[bB]?$" }
                ]
            }),
            Shape::Word(words) => word_schema(words),
            Shape::Status => json!({
                "anyOf": [
                    { "type": "integer", "minimum": 100, "maximum": 599 },
                    { "type": "string", "pattern": "^[1-5](xx|XX|[0-9]{2})$" }
                ]
            }),
            Shape::Json => json!({}),
            Shape::List(item) => json!({ "type": "array", "items": self.shape(item) }),
            Shape::Many(item) => {
                let item = self.shape(item);
                json!({ "anyOf": [item.clone(), { "type": "array", "items": item }] })
            }
            Shape::Names(names) => self.names(names),
            Shape::Mapping(table) => self.reference(table),
            Shape::Any(alternatives) => {
                let mut schemas: Vec<Json> =
                    alternatives.iter().map(|shape| self.shape(shape)).collect();
                match (schemas.pop(), schemas.is_empty()) {
                    (Some(only), true) => only,
                    (last, _) => {
                        schemas.extend(last);
                        json!({ "anyOf": schemas })
                    }
                }
            }
        }
    }

    fn names(&mut self, names: &Names) -> Json {
        let mut schema =
            json!({ "type": "object", "additionalProperties": self.shape(&names.value) });
        if !names.pattern.is_empty() {
            schema["propertyNames"] = json!({ "pattern": names.pattern });
        }
        schema
    }

    fn reference(&mut self, table: &'static Mapping) -> Json {
        let name = definition_name(table);
        if !self.definitions.contains_key(&name) {
            // Stands in while the mapping describes itself.
            self.definitions.insert(name.clone(), Json::Null);
            let schema = self.mapping(table);
            self.definitions.insert(name.clone(), schema);
        }
        json!({ "$ref": format!("#/definitions/{name}") })
    }
}

fn definition_name(table: &Mapping) -> String {
    let words: String = table.name.replace('`', "").replace(' ', "_");
    words.strip_prefix("a_").or(words.strip_prefix("an_")).unwrap_or(&words).to_owned()
}

/// Words with their meanings, which editors show beside each.
fn word_schema(words: &[Word]) -> Json {
    let built = || words.iter().filter(|word| word.built);
    if built().all(|word| word.doc.is_empty()) {
        return json!({ "enum": built().map(|word| word.text).collect::<Vec<_>>() });
    }
    let choices: Vec<Json> =
        built().map(|word| json!({ "const": word.text, "description": word.doc })).collect();
    json!({ "oneOf": choices })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// `UPDATE_SCHEMAS=1 cargo test --lib schema` writes them anew.
    #[test]
    fn the_committed_schemas_are_fresh() {
        for (document, name) in [(Document::Route, "route"), (Document::Config, "config")] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("schemas")
                .join(format!("{name}.schema.json"));
            let made = text(document);
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &made).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == made, "{} is stale: run with UPDATE_SCHEMAS=1", path.display());
        }
    }

    /// Two tables under one definition would make one of them lie.
    #[test]
    fn definitions_have_names_of_their_own() {
        let mut seen: BTreeMap<String, *const Mapping> = BTreeMap::new();
        let mut visited = BTreeSet::new();
        for table in [&route::ROUTE, &server::CONFIG, &source::SOURCE_FILE, &provider::PROVIDER] {
            walk(table, &mut seen, &mut visited);
        }
    }

    fn walk(
        table: &'static Mapping,
        seen: &mut BTreeMap<String, *const Mapping>,
        visited: &mut BTreeSet<*const Mapping>,
    ) {
        if !visited.insert(table) {
            return;
        }
        let other = seen.insert(definition_name(table), table);
        assert!(other.is_none_or(|other| other == table), "two tables are {}", table.name);
        let mut names = BTreeSet::new();
        for key in table.keys {
            assert!(names.insert(key.name), "{} has `{}` twice", table.name, key.name);
            assert!(
                !key.built || !key.doc.is_empty(),
                "{} does not explain `{}`",
                table.name,
                key.name
            );
            shapes(&key.shape, seen, visited);
        }
        assert!(table.one_of.iter().all(|name| names.contains(name)));
    }

    fn shapes(
        shape: &Shape,
        seen: &mut BTreeMap<String, *const Mapping>,
        visited: &mut BTreeSet<*const Mapping>,
    ) {
        match shape {
            Shape::Mapping(table) => walk(table, seen, visited),
            Shape::List(item) | Shape::Many(item) => shapes(item, seen, visited),
            Shape::Any(all) => all.iter().for_each(|shape| shapes(shape, seen, visited)),
            Shape::Names(names) => {
                regex::Regex::new(names.pattern).unwrap();
                shapes(&names.value, seen, visited);
            }
            Shape::Pattern(pattern, _) => drop(regex::Regex::new(pattern).unwrap()),
            _ => {}
        }
    }
}
