//! JSON, strictly: RFC 7515 §4 and RFC 7519 §4 let a reader refuse an object that has a member twice, and so does this,
//! at any depth. Otherwise two readers could believe different ones.

use std::collections::BTreeMap;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value. Numbers are as JavaScript has them.
pub(super) enum Json {
    Null,
    Bool,
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// The members of an object, each of them once.
#[derive(Default)]
pub(super) struct Object(BTreeMap<String, Json>);

impl Object {
    /// Reads a text that is one object and nothing else; `None` if it is not.
    pub(super) fn parse(text: &[u8]) -> Option<Object> {
        match serde_json::from_slice(text) {
            Ok(Json::Object(object)) => Some(object),
            _ => None,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether it has no members but these.
    pub(super) fn has_only(&self, names: &[&str]) -> bool {
        self.0.keys().all(|name| names.contains(&name.as_str()))
    }

    /// A member that is a text, if it is there at all.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<&str>, WrongType> {
        match self.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(_) => Err(WrongType(name)),
        }
    }
}

/// A member is there, and is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongType(pub(super) &'static str);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without doubled members")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Json::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, value)) = members.next_entry::<String, Json>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member comes twice"));
            }
        }
        Ok(Json::Object(Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_object_without_doubles() {
        for good in ["{}", " {\"a\":[1,{\"b\":null}],\"A\":true}\n", "{\"a\":{\"a\":1},\"b\":-1e2}"] {
            assert!(Object::parse(good.as_bytes()).is_some(), "{good}");
        }
        let deep = "[".repeat(4000);
        for bad in [
            "",
            "1",
            "[]",
            "null",
            "{",
            "{}{}",
            "{} x",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":1}",
            "{\"b\":[{\"a\":1,\"a\":1}]}",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":01}",
            "{\"a\":1e999}",
            "\u{FEFF}{}",
            &deep,
            &format!("{{\"a\":{deep}"),
        ] {
            assert!(Object::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_none());
    }

    #[test]
    fn a_text_is_a_text_or_not_there() {
        let object = Object::parse(b"{\"a\":\"x\",\"b\":1,\"c\":null}").unwrap();
        assert_eq!(object.text("a"), Ok(Some("x")));
        assert_eq!(object.text("d"), Ok(None));
        assert_eq!((object.text("b"), object.text("c")), (Err(WrongType("b")), Err(WrongType("c"))));
    }
}
