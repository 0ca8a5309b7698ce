//! The fields of a command, read out of its JSON in one pass: texts are borrowed where they hold no escape, and what is
//! not ours is skipped without being stored.

use std::borrow::Cow;
use std::fmt;

use serde_core::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One field's value, as far as commands have use for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A string.
    Text(Cow<'a, str>),
    /// An integer.
    Number(i64),
    /// Anything else.
    Other,
}

/// A field of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Type,
    Ref,
    Channel,
    Data,
    DataBase64,
    Since,
    Last,
    To,
    Token,
}

/// Every field with its name, in the order of the enum.
const KEYS: [(&str, Key); 9] = [
    ("type", Key::Type),
    ("ref", Key::Ref),
    ("channel", Key::Channel),
    ("data", Key::Data),
    ("data_base64", Key::DataBase64),
    ("since", Key::Since),
    ("last", Key::Last),
    ("to", Key::To),
    ("token", Key::Token),
];

/// The fields of a command; null counts as absent.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    values: [Option<Value<'a>>; KEYS.len()],
    /// One bit a field that was given, null or not.
    seen: u16,
    twice: u16,
}

impl<'a> Fields<'a> {
    /// Reads one JSON object and nothing else; None if the text is not that.
    pub(super) fn read(text: &'a str) -> Option<Fields<'a>> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields = deserializer.deserialize_map(FieldsVisitor).ok()?;
        deserializer.end().ok()?;
        Some(fields)
    }

    /// Takes a field's value out.
    pub(super) fn take(&mut self, key: Key) -> Option<Value<'a>> {
        self.values.get_mut(key as usize).and_then(Option::take)
    }

    /// Whether this field was given more than once.
    pub(super) fn is_twice(&self, key: Key) -> bool {
        self.twice & 1 << key as u16 != 0
    }

    /// Whether any field was given more than once.
    pub(super) fn has_duplicates(&self) -> bool {
        self.twice != 0
    }

    fn put(&mut self, key: Key, value: Option<Value<'a>>) {
        let bit = 1 << key as u16;
        self.twice |= self.seen & bit;
        self.seen |= bit;
        if let Some(place) = self.values.get_mut(key as usize) {
            *place = value;
        }
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(known) = map.next_key::<Known>()? {
            match known.0 {
                Some(key) => fields.put(key, map.next_value::<Nullable<'de>>()?.0),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// A key of the object; None if it is not ours.
struct Known(Option<Key>);

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Known, D::Error> {
        deserializer.deserialize_str(KnownVisitor)
    }
}

struct KnownVisitor;

impl Visitor<'_> for KnownVisitor {
    type Value = Known;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Known, E> {
        Ok(Known(KEYS.iter().find(|(name, _)| *name == text).map(|(_, key)| *key)))
    }
}

/// A value of ours; None for null.
struct Nullable<'a>(Option<Value<'a>>);

impl<'de> Deserialize<'de> for Nullable<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Nullable<'de>, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Nullable)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Option<Value<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Value::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Number(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(i64::try_from(number).map_or(Value::Other, Value::Number)))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Some(Value::Other))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Other))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(Value::Other))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Some(Value::Other))
    }
}
