//! Colours of patches from the first three principal components.

use crate::pca::{Pca, PcaError};

/// Fraction of the patches outside the colour range at either end.
const CLIPPED_PART: f32 = 0.01;
/// Red, green and blue.
const CHANNELS: usize = 3;

/// Colours of patch features: the first three principal components as red, green and blue.
///
/// Basis and colour range are fixed by the fit, so that objects keep their colours across a video.
#[derive(Clone, Debug, PartialEq)]
pub struct PcaView {
    pca: Pca,
    /// Per channel, the coordinate that becomes 0 and the one that becomes 255.
    ranges: [(f32, f32); CHANNELS],
    coordinates: Vec<f32>,
}

impl PcaView {
    /// Fits basis and range (1st to 99th percentile of each component) to `patches: [n, dim]` of one or several frames.
    ///
    /// # Errors
    /// A number of values that is not a positive multiple of `dim`, values that are not finite, or `dim` below 3.
    pub fn fit(patches: &[f32], dim: usize) -> Result<Self, PcaError> {
        let pca = Pca::fit(patches, dim, CHANNELS)?;
        let mut coordinates = Vec::new();
        pca.project_into(patches, &mut coordinates)?;
        let ranges = std::array::from_fn(|channel| {
            let mut values: Vec<f32> = coordinates.iter().skip(channel).step_by(CHANNELS).copied().collect();
            values.sort_by(f32::total_cmp);
            (quantile(&values, CLIPPED_PART), quantile(&values, 1.0 - CLIPPED_PART))
        });
        Ok(Self { pca, ranges, coordinates })
    }

    /// The basis.
    pub fn pca(&self) -> &Pca {
        &self.pca
    }

    /// Writes the colours of `patches: [rows, cols, dim]` into `rgb: [rows, cols, 3]`, replacing its content. A component with an empty
    /// range becomes mid-grey.
    ///
    /// # Errors
    /// A number of values that is not a positive multiple of `dim`.
    pub fn rgb_into(&mut self, patches: &[f32], rgb: &mut Vec<u8>) -> Result<(), PcaError> {
        self.pca.project_into(patches, &mut self.coordinates)?;
        rgb.clear();
        rgb.extend(self.coordinates.chunks_exact(CHANNELS).flat_map(|pixel| {
            let channels = pixel.iter().zip(&self.ranges);
            channels.map(|(value, (low, high))| {
                let part = if high > low { (value - low) / (high - low) } else { 0.5 };
                (part.clamp(0.0, 1.0) * 255.0).round() as u8
            })
        }));
        Ok(())
    }
}

/// Linear interpolation between the two nearest of the sorted values (numpy's default).
fn quantile(sorted: &[f32], part: f32) -> f32 {
    let position = part * (sorted.len() - 1) as f32;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}
