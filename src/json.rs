//! Reading JSON documents part by part.
//!
//! A document is parsed as a [`Value`], and what is wanted is taken from there. A derived `Deserialize` for each type would
//! bring a parser of its own: together they were larger than all of our cryptography.

use std::net::IpAddr;

use serde_json::Value;

use crate::bond::sorted::SortedMap;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    /// It is JSON of another kind.
    #[error("this is JSON, but not what belongs here")]
    Kind,
    /// A part of it is not what it should be.
    #[error("'{0}' is missing or cannot be understood")]
    Part(&'static str),
}

/// A type that a document, or a part of one, can have.
pub trait FromJson: Sized {
    /// Takes it from `value`; `None` when that is something else. What is missing is [`Value::Null`].
    fn from_json(value: &Value) -> Option<Self>;
}

/// A whole document.
///
/// # Errors
///
/// When it is no JSON, or not a `T`.
pub fn read<T: FromJson>(text: &[u8]) -> Result<T, Error> {
    T::from_json(&serde_json::from_slice(text)?).ok_or(Error::Kind)
}

/// A part of an object, by its name.
pub fn get<T: FromJson>(object: &Value, name: &str) -> Option<T> {
    T::from_json(&object[name])
}

/// A part of an object that is complained of by its name.
///
/// # Errors
///
/// When it is not a `T`.
pub fn part<T: FromJson>(object: &Value, name: &'static str) -> Result<T, Error> {
    get(object, name).ok_or(Error::Part(name))
}

/// The items of a list; none where there is no list.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts in a list.
pub fn texts(value: &Value) -> Vec<&str> {
    let mut texts = Vec::new();
    for item in items(value) {
        texts.extend(item.as_str());
    }
    texts
}

/// A number as JSON has it, but a whole one without a point.
pub fn decimal(number: &Value) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

impl FromJson for bool {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FromJson for u64 {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

impl FromJson for u32 {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl FromJson for u16 {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl FromJson for u8 {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_u64()?.try_into().ok()
    }
}

impl FromJson for i64 {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_i64()
    }
}

impl FromJson for String {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl FromJson for IpAddr {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_str()?.parse().ok()
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::from_json(value).map(Some) }
    }
}

/// A list that is missing is empty.
impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: &Value) -> Option<Self> {
        if value.is_null() { Some(Vec::new()) } else { value.as_array()?.iter().map(T::from_json).collect() }
    }
}

impl<T: FromJson> FromJson for SortedMap<String, T> {
    fn from_json(value: &Value) -> Option<Self> {
        value.as_object()?.iter().map(|(name, value)| Some((name.clone(), T::from_json(value)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_what_is_asked_for_or_are_named() {
        let object =
            json!({ "port": 65_536, "on": true, "to": ["10.0.0.1", "::1"], "no": null, "text": "a" });
        assert_eq!(part::<u32>(&object, "port").unwrap(), 65_536);
        assert_eq!(
            part::<u16>(&object, "port").unwrap_err().to_string(),
            "'port' is missing or cannot be understood"
        );
        assert_eq!(get::<bool>(&object, "on"), Some(true));
        assert_eq!(get::<bool>(&object, "text"), None);
        assert_eq!(get::<String>(&object, "text").as_deref(), Some("a"));
        assert_eq!(get::<Vec<IpAddr>>(&object, "to").map(|list| list.len()), Some(2));
        assert_eq!(get::<Vec<u8>>(&object, "to"), None, "one that does not fit is enough");
        assert_eq!(get::<Vec<u8>>(&object, "gone"), Some(Vec::new()));
        assert_eq!(get::<Option<u8>>(&object, "no"), Some(None));
        assert_eq!(get::<Option<u8>>(&object, "on"), None);
        assert_eq!(get::<u8>(&object, "gone"), None);
    }

    #[test]
    fn what_is_no_list_has_no_items() {
        let list = json!(["a", 1, null, "b"]);
        assert_eq!((items(&list).len(), texts(&list)), (4, vec!["a", "b"]));
        assert!(items(&json!("a")).is_empty() && texts(&json!({ "a": "b" })).is_empty());
    }

    #[test]
    fn a_document_is_json_of_its_kind() {
        let map = read::<SortedMap<String, i64>>(br#"{ "b": -2, "a": 1 }"#).unwrap();
        assert_eq!(map, SortedMap::from([("a".to_owned(), 1), ("b".to_owned(), -2)]));
        assert!(matches!(read::<SortedMap<String, i64>>(br#"{ "b": "-2" }"#), Err(Error::Kind)));
        assert!(matches!(read::<SortedMap<String, i64>>(b"[]"), Err(Error::Kind)));
        assert!(matches!(read::<u8>(b"1 2"), Err(Error::Syntax(_))));
    }
}
