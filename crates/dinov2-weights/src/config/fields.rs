//! Typed reading of some fields of a JSON object; all others are ignored.

use serde_json::{Map, Value};

use crate::metadata::PixelSize;

/// Longest excerpt of a configuration in a message.
const MAX_SHOWN: usize = 60;
/// Largest side of an image that a configuration may state.
const MAX_STATED_SIDE_PX: u64 = 1 << 20;

/// A JSON object. `null` counts as absent, as in the libraries that write these files.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn value(self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn object(self, name: &str) -> Option<Fields<'a>> {
        self.value(name).and_then(Value::as_object).map(Fields)
    }

    pub(super) fn text(self, name: &str) -> Option<&'a str> {
        self.value(name).and_then(Value::as_str)
    }

    pub(super) fn flag(self, name: &str) -> Result<Option<bool>, String> {
        self.parsed(name, "true or false", Value::as_bool)
    }

    pub(super) fn count(self, name: &str) -> Result<Option<usize>, String> {
        let count = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok());
        self.parsed(name, "a count", count)
    }

    pub(super) fn number(self, name: &str) -> Result<Option<f64>, String> {
        self.parsed(name, "a number", Value::as_f64)
    }

    /// One number per channel. A single number applies to all three; a list of another length is an error.
    pub(super) fn channels(self, name: &str) -> Result<Option<[f64; 3]>, String> {
        self.parsed(name, "three numbers", |value| match value {
            Value::Array(values) => {
                let [red, green, blue] = values.as_slice() else { return None };
                Some([red.as_f64()?, green.as_f64()?, blue.as_f64()?])
            }
            value => value.as_f64().map(|value| [value; 3]),
        })
    }

    /// A size as `side`, `[height, width]`, `[channels, height, width]` or `{"height": …, "width": …}`.
    pub(super) fn size(self, name: &str) -> Result<Option<PixelSize>, String> {
        self.parsed(name, "a side or [height, width]", |value| match value {
            Value::Array(sides) => match sides.as_slice() {
                [height, width] | [_, height, width] => pixel_size(height, width),
                _ => None,
            },
            Value::Object(sides) => pixel_size(sides.get("height")?, sides.get("width")?),
            side => pixel_size(side, side),
        })
    }

    pub(super) fn parsed<T>(
        self,
        name: &str,
        expected: &str,
        parse: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let wrong = || format!("{name}: expected {expected}, got {}", shown(value));
        parse(value).map(Some).ok_or_else(wrong)
    }
}

pub(super) fn pixel_size(height: &Value, width: &Value) -> Option<PixelSize> {
    Some(PixelSize { height_px: side_px(height)?, width_px: side_px(width)? })
}

pub(super) fn side_px(value: &Value) -> Option<u32> {
    let side = value.as_u64().filter(|side| (1..=MAX_STATED_SIDE_PX).contains(side))?;
    u32::try_from(side).ok()
}

/// A value, shortened for a message.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
