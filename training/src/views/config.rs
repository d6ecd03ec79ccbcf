//! How views are drawn, as a part of recipes.

use serde::{Deserialize, Serialize};

/// Longest side of a view: 146 patches of 14.
pub const MAX_SIDE_PX: usize = 2_044;

/// Sides of a batch's square views in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// Of the student's.
    pub student_px: usize,
    /// Of the teacher's, where they are not the student's.
    pub teacher_px: Option<usize>,
}

/// How views are drawn, as in recipes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    /// Sides of the square views in pixels; one is drawn per batch.
    pub sizes_px: Vec<usize>,
    /// Sides of the teacher's views: per batch, one of those that are not smaller than the student's is drawn. None: the
    /// teacher sees the student's pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_sizes_px: Option<Vec<usize>>,
    /// Least and largest area of the crop, as shares of the image.
    pub scale: [f32; 2],
    /// Narrowest and widest crop, width over height.
    pub ratio: [f32; 2],
    /// Probability of a view that is mirrored left to right.
    pub flip: f32,
    /// Changes of colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<ColourJitter>,
    /// Probability of a view without colour.
    pub grey: f32,
    /// Probability of a view that is mixed with another one of the batch, in shares uniform in 0..1.
    pub mixup: f32,
}

/// Random changes of colour, as torchvision's `ColorJitter` has them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColourJitter {
    /// Factors uniform in `max(0, 1 - brightness)..1 + brightness`.
    pub brightness: f32,
    /// Factors as for the brightness.
    pub contrast: f32,
    /// Factors as for the brightness.
    pub saturation: f32,
    /// Turns of the colour circle, uniform in `-hue..hue`; at most 0.5.
    pub hue: f32,
    /// Probability that a view's colours are changed at all.
    pub probability: f32,
}

/// An invalid view configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("views: {key}: expected {expected}, got {got}")]
pub struct ViewError {
    /// Key as in a recipe.
    pub key: &'static str,
    /// The valid values.
    pub expected: String,
    /// The value found.
    pub got: String,
}

impl ViewConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// The first value out of its range.
    pub fn check(&self) -> Result<(), ViewError> {
        check_sides("sizes_px", &self.sizes_px)?;
        let largest = self.sizes_px.iter().copied().max().unwrap_or(0);
        if let Some(teacher) = &self.teacher_sizes_px {
            check_sides("teacher_sizes_px", teacher)?;
            if !teacher.iter().any(|&side| side >= largest) {
                let expected = format!("a side of at least the student's {largest}");
                return Err(ViewError { key: "teacher_sizes_px", expected, got: format!("{teacher:?}") });
            }
        }
        check_range("scale", self.scale, 1.0)?;
        check_range("ratio", self.ratio, 100.0)?;
        check_within("flip", self.flip, 1.0)?;
        check_within("grey", self.grey, 1.0)?;
        check_within("mixup", self.mixup, 1.0)?;
        let Some(colour) = &self.colour else { return Ok(()) };
        check_within("colour.brightness", colour.brightness, 10.0)?;
        check_within("colour.contrast", colour.contrast, 10.0)?;
        check_within("colour.saturation", colour.saturation, 10.0)?;
        check_within("colour.hue", colour.hue, 0.5)?;
        check_within("colour.probability", colour.probability, 1.0)
    }
}

fn check_sides(key: &'static str, sides: &[usize]) -> Result<(), ViewError> {
    let fits = |side: &usize| (1..=MAX_SIDE_PX).contains(side);
    if !sides.is_empty() && sides.iter().all(fits) {
        return Ok(());
    }
    Err(ViewError { key, expected: format!("sides of 1..={MAX_SIDE_PX}"), got: format!("{sides:?}") })
}

fn check_range(key: &'static str, [low, high]: [f32; 2], most: f32) -> Result<(), ViewError> {
    if 0.0 < low && low <= high && high <= most {
        return Ok(());
    }
    Err(ViewError { key, expected: format!("0 < low <= high <= {most}"), got: format!("[{low}, {high}]") })
}

fn check_within(key: &'static str, value: f32, most: f32) -> Result<(), ViewError> {
    if (0.0..=most).contains(&value) {
        return Ok(());
    }
    Err(ViewError { key, expected: format!("0 to {most}"), got: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "sizes_px = [224]\nscale = [0.32, 1.0]\nratio = [0.75, 1.3333]\nflip = 0.5\ngrey = 0.0\nmixup = 0.5\n\
        [colour]\nbrightness = 0.4\ncontrast = 0.4\nsaturation = 0.2\nhue = 0.1\nprobability = 0.8\n";

    fn config() -> ViewConfig {
        toml::from_str(RECIPE).unwrap()
    }

    #[test]
    fn stands_in_recipes_as_it_was_written() {
        let config = config();
        assert_eq!(config.check(), Ok(()));
        assert_eq!(toml::from_str::<ViewConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        let unknown = RECIPE.replace("flip", "flop");
        assert!(toml::from_str::<ViewConfig>(&unknown).unwrap_err().to_string().contains("flop"));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let key = |change: fn(&mut ViewConfig)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err().key
        };
        assert_eq!(key(|c| c.sizes_px.clear()), "sizes_px");
        assert_eq!(key(|c| c.sizes_px.push(0)), "sizes_px");
        assert_eq!(key(|c| c.teacher_sizes_px = Some(vec![210])), "teacher_sizes_px");
        assert_eq!(key(|c| c.scale = [0.5, 0.4]), "scale");
        assert_eq!(key(|c| c.scale = [0.0, 1.0]), "scale");
        assert_eq!(key(|c| c.ratio = [f32::NAN, 1.0]), "ratio");
        assert_eq!(key(|c| c.flip = 1.5), "flip");
        assert_eq!(key(|c| c.mixup = -0.1), "mixup");
        assert_eq!(key(|c| c.colour.as_mut().unwrap().hue = 0.6), "colour.hue");
    }
}
