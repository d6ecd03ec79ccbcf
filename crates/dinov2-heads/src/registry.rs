//! The list of all heads, and their selection by name and configuration. A new head is one row here.

use dinov2_core::VitSpec;
use serde_json::{Map, Value};

use crate::{Head, HeadError, HeadKind, norm, pca_head, similarity};

/// All heads.
pub const HEADS: &[HeadKind] = &[pca_head::KIND, similarity::KIND, norm::KIND];

/// A head with its configuration, written `NAME`, `NAME:KEY=VALUE,KEY=VALUE` or `NAME:{JSON}`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadChoice {
    /// Name of a [`HeadKind`].
    pub name: &'static str,
    /// The configuration, a JSON object.
    pub config: Value,
}

impl HeadChoice {
    /// A head with its default configuration.
    ///
    /// # Errors
    /// [`HeadError::Unknown`].
    pub fn new(name: &str) -> Result<Self, HeadError> {
        Ok(Self { name: kind(name)?.name, config: Value::Object(Map::new()) })
    }

    /// Creates the head for a model of this shape.
    ///
    /// # Errors
    /// [`HeadError::Config`].
    pub fn open(&self, spec: &VitSpec) -> Result<Box<dyn Head>, HeadError> {
        (kind(self.name)?.open)(&self.config, spec)
    }
}

impl std::str::FromStr for HeadChoice {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Self, HeadError> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        let mut choice = Self::new(name)?;
        if settings.starts_with('{') {
            choice.config =
                serde_json::from_str(settings).map_err(|error| HeadError::config(choice.name, error))?;
            return Ok(choice);
        }
        let mut fields = Map::new();
        for setting in split_settings(settings).filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').ok_or_else(|| {
                HeadError::config(choice.name, format!("expected KEY=VALUE, got {setting:?}"))
            })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| text_or_number(value));
            fields.insert(key.into(), value);
        }
        choice.config = Value::Object(fields);
        Ok(choice)
    }
}

/// Splits at commas outside brackets.
fn split_settings(settings: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    settings.split(move |letter| {
        depth += i32::from(letter == '[') - i32::from(letter == ']');
        letter == ',' && depth <= 0
    })
}

/// Parses a value as JSON; words need no quotes, and numbers may begin with a point.
fn text_or_number(value: &str) -> Value {
    value.parse::<f64>().map_or_else(|_| value.into(), Value::from)
}

fn kind(name: &str) -> Result<&'static HeadKind, HeadError> {
    HEADS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let names: Vec<&str> = HEADS.iter().map(|kind| kind.name).collect();
        HeadError::Unknown { expected: names.join(", "), got: name.into() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn choices_are_parsed() {
        let choice = |text: &str| text.parse::<HeadChoice>();
        assert_eq!(choice("norm").unwrap().config, json!({}));
        assert_eq!(choice("pca:fit=follow").unwrap().config, json!({ "fit": "follow" }));
        let point = json!({ "x": 0.5, "y": 0.25 });
        assert_eq!(choice("similarity:x=0.5,y=.25").unwrap().config, json!({ "x": 0.5, "y": 0.25 }));
        assert_eq!(choice("similarity:x=0.5,y=0.25").unwrap().config, point);
        assert_eq!(choice(r#"similarity:{"x":0.5,"y":0.25}"#).unwrap().config, point);
        let feature = json!({ "feature": [1, 2.5] });
        assert_eq!(choice("similarity:feature=[1,2.5]").unwrap().config, feature);
        for (wrong, told) in [
            ("depth9", "expected one of pca, similarity, norm, got \"depth9\""),
            ("", "expected one of"),
            ("pca:fit", "wrong configuration"),
            ("pca:{", "wrong configuration"),
        ] {
            let error = choice(wrong).unwrap_err().to_string();
            assert!(error.contains(told), "{wrong}: {error}");
        }
    }

    #[test]
    fn names_are_unique_and_plain() {
        for (index, kind) in HEADS.iter().enumerate() {
            assert!(kind.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", kind.name);
            assert!(!HEADS[..index].iter().any(|other| other.name == kind.name), "{}", kind.name);
        }
    }
}
