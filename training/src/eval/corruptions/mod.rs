//! Corrupted pictures: what weather, cameras and codecs do to what a network sees.
//!
//! Ten of the corruptions of ImageNet-C (arXiv 1903.12261) with its strengths at severities 1 to 5, for pictures of about 224
//! pixels. What is random is a function of a seed alone. Like there, values are clipped to 0..=1 and cut off to bytes.

mod blur;
mod light;
mod noise;
mod resample;

use std::fmt;

use dinov2_core::ImageView;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Channels of a picture.
const CHANNELS: usize = 3;

/// A kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Corruption {
    /// Normal noise on every value: low light.
    GaussianNoise,
    /// Poisson noise on every value: few photons.
    ShotNoise,
    /// Values that become black or white: dead pixels, bit errors.
    ImpulseNoise,
    /// A disk: out of focus.
    DefocusBlur,
    /// A line with a tail: the camera moves.
    MotionBlur,
    /// A sum in HSV's value: too much light.
    Brightness,
    /// Differences to the mean, shrunk.
    Contrast,
    /// A bright cloud of fractal density.
    Fog,
    /// Squares of one colour.
    Pixelate,
    /// JPEG at a low quality.
    Jpeg,
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

    /// Of five strengths, that of this severity.
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
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::GaussianNoise,
        Self::ShotNoise,
        Self::ImpulseNoise,
        Self::DefocusBlur,
        Self::MotionBlur,
        Self::Brightness,
        Self::Contrast,
        Self::Fog,
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
            Self::MotionBlur => "motion blur",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Fog => "fog",
            Self::Pixelate => "pixelate",
            Self::Jpeg => "JPEG",
        }
    }

    /// The pixels of `image` damaged, `[height_px, width_px, 3]`. `seed` decides whatever is random.
    ///
    /// # Panics
    /// If the image has no pixels.
    pub fn apply(self, image: ImageView<'_>, severity: Severity, seed: u64) -> Vec<u8> {
        assert!(!image.pixels().is_empty(), "image: expected pixels, got none");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let size = (image.width_px(), image.height_px());
        match self {
            Self::Pixelate => return resample::pixelate(image.pixels(), size, severity),
            Self::Jpeg => return resample::jpeg(image, severity),
            // The one whose arithmetic is in bytes.
            Self::MotionBlur => {
                return blur::motion(image.pixels(), size, severity, blur::angle(&mut random));
            }
            _ => {}
        }
        let mut values: Vec<f32> = image.pixels().iter().map(|value| f32::from(*value) / 255.0).collect();
        match self {
            Self::GaussianNoise => noise::gaussian(&mut values, severity, &mut random),
            Self::ShotNoise => noise::shot(&mut values, severity, &mut random),
            Self::ImpulseNoise => noise::impulse(&mut values, severity, &mut random),
            Self::DefocusBlur => values = blur::defocus(&values, size, severity),
            Self::Brightness => light::brightness(&mut values, severity),
            Self::Contrast => light::contrast(&mut values, severity),
            Self::Fog => light::fog(&mut values, size, severity, &mut random),
            Self::MotionBlur | Self::Pixelate | Self::Jpeg => unreachable!("done above"),
        }
        values.into_iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8).collect()
    }
}

#[cfg(test)]
mod tests;
