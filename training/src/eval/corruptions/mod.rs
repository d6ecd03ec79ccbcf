//! Corruptions of images by weather, cameras and codecs.
//!
//! The corruptions of ImageNet-C (arXiv 1903.12261) with its strengths at severities 1 to 5, for pictures of about 224 pixels, as
//! the package imagecorruptions applies them to pictures of any size. Its elastic transform has strengths of its own, for it leaves
//! out ImageNet-C's affine part. Frost is missing: ImageNet-C pastes photographs of frost, which are not part of this project.
//!
//! Randomness is a function of a seed alone. As in ImageNet-C, values are clipped to 0..=1 and truncated to bytes.

mod blur;
mod elastic;
mod glass;
mod light;
mod noise;
mod resample;
mod smooth;
mod snow;
mod zoom;

use std::fmt;

use dinov2_core::ImageView;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Channels of a picture.
const CHANNELS: usize = 3;

/// A kind of corruption.
///
/// Its number is part of the random seed (`Robustness`), so changing it makes figures incomparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Corruption {
    /// Normal noise on every value: low light.
    GaussianNoise = 0,
    /// Poisson noise on every value: few photons.
    ShotNoise = 1,
    /// Values that become black or white: dead pixels, bit errors.
    ImpulseNoise = 2,
    /// A disk: out of focus.
    DefocusBlur = 3,
    /// Pixels replaced by nearby ones: frosted glass.
    GlassBlur = 10,
    /// A line with a tail: the camera moves.
    MotionBlur = 4,
    /// The mean of enlarged images: the camera moves forward.
    ZoomBlur = 11,
    /// A whitened picture behind falling flakes.
    Snow = 12,
    /// A bright cloud of fractal density.
    Fog = 7,
    /// A constant added to HSV's value: too much light.
    Brightness = 5,
    /// Smaller differences to the mean.
    Contrast = 6,
    /// Small regions that are stretched or squeezed.
    Elastic = 13,
    /// Squares of one colour.
    Pixelate = 8,
    /// JPEG at a low quality.
    Jpeg = 9,
}

/// How strong a corruption is: 1 to 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Severity(u8);

impl Severity {
    /// Weakest first.
    pub const ALL: [Self; 5] = [Self(1), Self(2), Self(3), Self(4), Self(5)];

    /// 1..=5.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The strength of this severity among five.
    fn of<T: Copy>(self, strengths: [T; 5]) -> T {
        strengths[usize::from(self.0) - 1]
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Corruption {
    /// Every kind, in ImageNet-C's order.
    pub const ALL: [Self; 14] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::GlassBlur,
        Self::MotionBlur,
        Self::ZoomBlur,
        Self::Snow,
        Self::Fog,
        Self::Brightness,
        Self::Contrast,
        Self::Elastic,
        Self::Pixelate,
        Self::Jpeg,
    ];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaussianNoise => "gaussian noise",
            Self::ShotNoise => "shot noise",
            Self::ImpulseNoise => "impulse noise",
            Self::DefocusBlur => "defocus blur",
            Self::GlassBlur => "glass blur",
            Self::MotionBlur => "motion blur",
            Self::ZoomBlur => "zoom blur",
            Self::Snow => "snow",
            Self::Fog => "fog",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Elastic => "elastic transform",
            Self::Pixelate => "pixelate",
            Self::Jpeg => "JPEG",
        }
    }

    /// The corrupted pixels, `[height_px, width_px, 3]`. `seed` determines all randomness.
    ///
    /// # Panics
    /// If the image has no pixels.
    pub fn apply(self, image: ImageView<'_>, severity: Severity, seed: u64) -> Vec<u8> {
        assert!(!image.pixels().is_empty(), "image: expected pixels, got none");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let size = (image.width_px(), image.height_px());
        let pixels = image.pixels();
        match self {
            Self::Pixelate => return resample::pixelate(pixels, size, severity),
            Self::Jpeg => return resample::jpeg(image, severity),
            // Corruptions that compute in bytes.
            Self::MotionBlur => return blur::motion(pixels, size, severity, blur::angle(&mut random)),
            Self::GlassBlur => {
                let draw = |most: i32| random.random_range(-most..most);
                return glass::glass(pixels, size, severity, draw);
            }
            _ => {}
        }
        let mut values: Vec<f32> = pixels.iter().map(|value| f32::from(*value) / 255.0).collect();
        match self {
            Self::GaussianNoise => noise::gaussian(&mut values, severity, &mut random),
            Self::ShotNoise => noise::shot(&mut values, severity, &mut random),
            Self::ImpulseNoise => noise::impulse(&mut values, severity, &mut random),
            Self::DefocusBlur => values = blur::defocus(&values, size, severity),
            Self::ZoomBlur => values = zoom::zoom(&values, size, severity),
            Self::Snow => snow::snow(&mut values, size, severity, &snow::Flakes::draw(size, &mut random)),
            Self::Fog => light::fog(&mut values, size, severity, &mut random),
            Self::Brightness => light::brightness(&mut values, severity),
            Self::Contrast => light::contrast(&mut values, severity),
            Self::Elastic => {
                let shifts = elastic::Shifts::draw(size, &mut random);
                values = elastic::elastic(&values, size, severity, &shifts);
            }
            Self::GlassBlur | Self::MotionBlur | Self::Pixelate | Self::Jpeg => unreachable!("done above"),
        }
        values.into_iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect()
    }
}

#[cfg(test)]
mod tests;
