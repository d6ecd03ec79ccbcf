use dinov2_core::ImageView;
use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

/// Encodes RGB images as baseline JPEG with 4:2:0 chroma. Keeps its buffer.
#[derive(Clone, Debug)]
pub struct JpegEncoder {
    quality: u8,
    bytes: Vec<u8>,
}

impl JpegEncoder {
    /// quality: 1..=100, on the scale of the Independent JPEG Group.
    pub fn new(quality: u8) -> Self {
        Self { quality: quality.clamp(1, 100), bytes: Vec::new() }
    }

    /// The file of `image`, valid until the next call. None if a side is longer than a JPEG can have (65,535 px).
    pub fn encode(&mut self, image: ImageView<'_>) -> Option<&[u8]> {
        self.bytes.clear();
        let (width, height) = (u16::try_from(image.width_px()).ok()?, u16::try_from(image.height_px()).ok()?);
        let mut encoder = Encoder::new(&mut self.bytes, self.quality);
        encoder.set_sampling_factor(SamplingFactor::F_2_2);
        match encoder.encode(image.pixels(), width, height, ColorType::Rgb) {
            Ok(()) => Some(&self.bytes),
            // Writing into memory does not fail and the pixels have the size that they state.
            Err(EncodingError::ZeroImageDimensions { .. }) => None,
            Err(error) => unreachable!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, decode_still};

    #[test]
    fn decodes_to_what_was_encoded() {
        // Gradients: what chroma at half the size keeps.
        let (width, height) = (70, 41);
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| [3 * x as u8, 5 * y as u8, 200 - 2 * x as u8]))
            .collect();
        let image = ImageView::new(&pixels, width, height).unwrap();
        let mut encoder = JpegEncoder::new(95);
        let first = encoder.encode(image).unwrap().to_vec();
        assert_eq!(encoder.encode(image).unwrap(), first);
        let mut frame = Frame::new();
        decode_still(&first, &mut frame).unwrap();
        assert_eq!((frame.width_px, frame.height_px), (width, height));
        let worst = frame.pixels.iter().zip(&pixels).map(|(got, want)| got.abs_diff(*want)).max().unwrap();
        assert!(worst <= 8, "{worst}");
    }
}
