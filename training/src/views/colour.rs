//! Changes of colour on RGB u8, each rounded to u8 as by torchvision on u8 tensors.

/// One change of colour.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ColourStep {
    /// Factor: 0 is black, 1 leaves all as it is.
    Brightness(f32),
    /// Factor: 0 is the mean grey, 1 leaves all as it is.
    Contrast(f32),
    /// Factor: 0 is grey, 1 leaves all as it is.
    Saturation(f32),
    /// Turns of the colour circle, -0.5 to 0.5.
    Hue(f32),
}

impl ColourStep {
    /// Whether it changes nothing.
    pub(super) fn is_idle(self) -> bool {
        match self {
            Self::Brightness(factor) | Self::Contrast(factor) | Self::Saturation(factor) => factor == 1.0,
            Self::Hue(turns) => turns == 0.0,
        }
    }

    /// pixels: `[n, 3]`, RGB.
    pub fn apply(self, pixels: &mut [[u8; 3]]) {
        match self {
            Self::Brightness(factor) => {
                pixels.iter_mut().for_each(|pixel| *pixel = pixel.map(|value| blend(value, 0.0, factor)));
            }
            Self::Contrast(factor) => {
                let sum: u64 = pixels.iter().map(|pixel| u64::from(luma(*pixel))).sum();
                let mean = (sum as f64 / pixels.len().max(1) as f64) as f32;
                pixels.iter_mut().for_each(|pixel| *pixel = pixel.map(|value| blend(value, mean, factor)));
            }
            Self::Saturation(factor) => pixels.iter_mut().for_each(|pixel| {
                let grey = f32::from(luma(*pixel));
                *pixel = pixel.map(|value| blend(value, grey, factor));
            }),
            Self::Hue(turns) => pixels.iter_mut().for_each(|pixel| *pixel = turn_hue(*pixel, turns)),
        }
    }
}

/// Converts to grey. pixels: `[n, 3]`.
pub(super) fn to_grey(pixels: &mut [[u8; 3]]) {
    pixels.iter_mut().for_each(|pixel| *pixel = [luma(*pixel); 3]);
}

/// `factor * value + (1 - factor) * other`, cut off and truncated.
fn blend(value: u8, other: f32, factor: f32) -> u8 {
    // PyTorch rounds the other's share once.
    let rest = (1.0 - f64::from(factor)) as f32;
    (factor * f32::from(value) + rest * other) as u8
}

/// ITU-R BT.601, with torchvision's digits, truncated.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    (0.2989 * f32::from(red) + 0.587 * f32::from(green) + 0.114 * f32::from(blue)) as u8
}

/// Turns a pixel's hue and keeps its largest and smallest component.
fn turn_hue(pixel: [u8; 3], turns: f32) -> [u8; 3] {
    let [red, green, blue] = pixel.map(|value| f32::from(value) / 255.0);
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    if range == 0.0 {
        return pixel;
    }
    let saturation = range / value;
    let [from_red, from_green, from_blue] = [red, green, blue].map(|part| (value - part) / range);
    let sixths = if value == red {
        from_blue - from_green
    } else if value == green {
        2.0 + from_red - from_blue
    } else {
        4.0 + from_green - from_red
    };
    let hue = ((sixths / 6.0 + 1.0) % 1.0 + turns).rem_euclid(1.0) * 6.0;
    let (sector, within) = (hue.floor(), hue - hue.floor());
    let low = value * (1.0 - saturation);
    let falling = value * (1.0 - saturation * within);
    let rising = value * (1.0 - saturation * (1.0 - within));
    let turned = match sector as u32 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    };
    // torchvision's `convert_image_dtype`: every level has the same share of 0..1.
    turned.map(|part| (part.clamp(0.0, 1.0) * 255.999) as u8)
}
