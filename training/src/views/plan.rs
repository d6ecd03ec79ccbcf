//! Draws views: crop, flip, changes of colour, mixtures.

use super::colour::ColourStep;
use super::{ColourJitter, ViewConfig};
use crate::random::{Purpose, Random};

/// Crops that are drawn before the centre is taken.
const CROP_ATTEMPTS: usize = 10;

/// The crop of a view, in pixels of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// Columns left of it.
    pub left_px: usize,
    /// Rows above it.
    pub top_px: usize,
    /// Its width, positive.
    pub width_px: usize,
    /// Its height, positive.
    pub height_px: usize,
}

/// The operations that turn an image into a view.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// What is cut out.
    pub crop: CropBox,
    /// Whether it is mirrored left to right.
    pub flip: bool,
    /// Changes of colour, in this order.
    pub colour: Vec<ColourStep>,
    /// Whether it is converted to grey at the end.
    pub grey: bool,
}

/// The partner of a view in its batch, and the share of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The other view's place in the batch.
    pub partner: usize,
    /// Share of the view itself, 0..1; the partner has the rest.
    pub own_share: f32,
}

impl View {
    /// View number `draw` (the epoch, say) of a sample whose image has this size, which is not empty.
    pub fn draw(
        config: &ViewConfig,
        seed: u64,
        sample: u64,
        draw: u64,
        width_px: usize,
        height_px: usize,
    ) -> Self {
        let mut random = Random::new(Purpose::View, seed, sample, draw);
        let flip = random.chance(config.flip);
        let grey = random.chance(config.grey);
        let colour = config.colour.as_ref().map_or_else(Vec::new, |jitter| draw_colour(jitter, &mut random));
        // Last, because its number of draws depends on the image's size.
        let crop = draw_crop(config, width_px, height_px, &mut || random.unit());
        Self { crop, flip, colour, grey }
    }
}

impl Mix {
    /// What is mixed into the view at `place` of a batch of `batch`; `position` counts views over the whole run.
    pub fn draw(config: &ViewConfig, seed: u64, position: u64, place: usize, batch: usize) -> Option<Self> {
        let mut random = Random::new(Purpose::Mix, seed, position, 0);
        if batch < 2 || !random.chance(config.mixup) {
            return None;
        }
        let partner = (place + 1 + random.below(batch - 1)) % batch;
        Some(Self { partner, own_share: random.unit() as f32 })
    }
}

/// The steps in random order. Every value is drawn even if it is not used, so that later draws do not depend on it.
fn draw_colour(jitter: &ColourJitter, random: &mut Random) -> Vec<ColourStep> {
    let wanted = random.chance(jitter.probability);
    let mut factor = |reach: f32| {
        let reach = f64::from(reach);
        random.between((1.0 - reach).max(0.0), 1.0 + reach) as f32
    };
    let mut steps = vec![
        ColourStep::Brightness(factor(jitter.brightness)),
        ColourStep::Contrast(factor(jitter.contrast)),
        ColourStep::Saturation(factor(jitter.saturation)),
    ];
    let hue = f64::from(jitter.hue);
    steps.push(ColourStep::Hue(random.between(-hue, hue) as f32));
    random.shuffle(&mut steps);
    steps.retain(|step| wanted && !step.is_idle());
    steps
}

/// Torchvision's `RandomResizedCrop.get_params`; `unit` gives numbers in 0..1.
fn draw_crop(
    config: &ViewConfig,
    width_px: usize,
    height_px: usize,
    unit: &mut dyn FnMut() -> f64,
) -> CropBox {
    let [scale, ratio] = [config.scale, config.ratio].map(|range| range.map(f64::from));
    let area = width_px as f64 * height_px as f64;
    let [low, high] = ratio.map(f64::ln);
    for _ in 0..CROP_ATTEMPTS {
        let target = area * (scale[0] + (scale[1] - scale[0]) * unit());
        let aspect = (low + (high - low) * unit()).exp();
        let width = (target * aspect).sqrt().round_ties_even() as usize;
        let height = (target / aspect).sqrt().round_ties_even() as usize;
        if (1..=width_px).contains(&width) && (1..=height_px).contains(&height) {
            let mut place = |free: usize| ((unit() * (free + 1) as f64) as usize).min(free);
            let top_px = place(height_px - height);
            let left_px = place(width_px - width);
            return CropBox { left_px, top_px, width_px: width, height_px: height };
        }
    }
    centre_crop(ratio, width_px, height_px)
}

/// The largest centred part within the ratios.
fn centre_crop(ratio: [f64; 2], width_px: usize, height_px: usize) -> CropBox {
    let own = width_px as f64 / height_px as f64;
    let (width, height) = if own < ratio[0] {
        (width_px, (width_px as f64 / ratio[0]).round_ties_even() as usize)
    } else if own > ratio[1] {
        ((height_px as f64 * ratio[1]).round_ties_even() as usize, height_px)
    } else {
        (width_px, height_px)
    };
    // Rounding must not leave an empty crop of a very thin image.
    let (width, height) = (width.clamp(1, width_px), height.clamp(1, height_px));
    let (left_px, top_px) = ((width_px - width) / 2, (height_px - height) / 2);
    CropBox { left_px, top_px, width_px: width, height_px: height }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
