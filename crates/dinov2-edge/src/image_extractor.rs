//! Features of images of any size: decodes and fits an image to the patch grid and runs an engine on it.

use std::path::Path;

use dinov2_core::{ExtractError, Extractor, Features, ImageView, PatchGeometry, Taps};
use dinov2_io::{Fit, FitError, Frame, Size, SourceError, read_still};

/// Why features of an image cannot be extracted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageExtractError {
    /// The file cannot be read or decoded.
    #[error(transparent)]
    Read(#[from] SourceError),
    /// The image cannot be fitted to the size.
    #[error(transparent)]
    Fit(#[from] FitError),
    /// The engine failed.
    #[error(transparent)]
    Extract(#[from] ExtractError),
}

/// An engine for images of any size: resizes or crops them to the model's patch grid, as `dinov2-edge run --size` does, and returns
/// the geometry of the patches in the image. For images that are already on the grid, use the engine itself ([`Extractor`]); for cameras
/// and files, [`crate::pipeline::Pipeline`].
///
/// ```
/// use dinov2_edge::io::Size;
/// use dinov2_edge::{CpuConfig, CpuEngine, Features, ImageExtractor, ImageView, Taps};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let model = dinov2_bundled::bundled_model()?;
/// let engine = CpuEngine::new(&model, CpuConfig::default())?;
/// let mut extractor = ImageExtractor::new(engine, Size::Short(112))?;
///
/// let pixels = vec![127u8; 640 * 480 * 3]; // RGB, rows from the top
/// let mut features = Features::new(); // reused from frame to frame
/// let geometry = extractor.extract(ImageView::new(&pixels, 640, 480)?, &Taps::none(), &mut features)?;
///
/// let at = geometry.patch_at(320.5, 240.5).expect("inside of the image"); // pixel (320, 240) of the image
/// let feature = features.patch(at.row, at.col); // [dim]
/// assert_eq!(feature.len(), 384);
/// let rect = geometry.rect(at.row, at.col); // what that patch covers, in pixels of the image
/// assert!(rect.left_px <= 320.5 && 320.5 < rect.left_px + rect.width_px);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ImageExtractor<E> {
    engine: E,
    fit: Fit,
    /// The last decoded file; its buffers are kept.
    frame: Frame,
}

impl<E: Extractor> ImageExtractor<E> {
    /// `size`: the size that images are fitted to. The patch size is the model's.
    ///
    /// # Errors
    /// An exact size that is not a multiple of the patch size or exceeds the limits.
    pub fn new(engine: E, size: Size) -> Result<Self, FitError> {
        let fit = Fit::new(size, engine.spec().patch_size)?;
        Ok(Self { engine, fit, frame: Frame::new() })
    }

    /// Extracts the features of one image, RGB u8 of any size, into `out`, replacing its content. Returns the geometry of the patches
    /// in the image. After the first image of a size nothing is allocated.
    ///
    /// # Errors
    /// An image without pixels, or smaller than one patch with [`Size::Native`]; a fitted image beyond the limits; errors of
    /// [`Extractor::extract`].
    pub fn extract(
        &mut self,
        image: ImageView<'_>,
        taps: &Taps,
        out: &mut Features,
    ) -> Result<PatchGeometry, ImageExtractError> {
        let geometry = self.geometry(image.width_px(), image.height_px())?;
        self.engine.extract(self.fit.fit(image)?, taps, out)?;
        Ok(geometry)
    }

    /// [`Self::extract`] of an image file: PNG, JPEG, BMP or PNM; GIF, QOI, TIFF and WebP with the feature `image-formats`; HEIC and
    /// AVIF where libheif's program is installed. Its EXIF orientation is applied; of an animation the first frame is taken. For
    /// videos and folders, see [`crate::io::open`].
    ///
    /// ```
    /// use dinov2_edge::io::Size;
    /// use dinov2_edge::{EngineConfig, Features, ImageExtractor, SelectedEngine, Taps};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/media/cat.jpg");
    /// let model = dinov2_bundled::bundled_model()?.into();
    /// let engine = SelectedEngine::open(&model, EngineConfig::default())?;
    /// let mut extractor = ImageExtractor::new(engine, Size::Short(224))?;
    /// let mut features = Features::new();
    /// let geometry = extractor.extract_file(photo, &Taps::none(), &mut features)?;
    /// assert_eq!(geometry.crop().width_px, 451); // the photograph's own pixels
    /// assert_eq!(features.patches().len(), 16 * 24 * 384); // [rows, cols, dim]
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A file that cannot be read or is no image; what [`Self::extract`] says.
    pub fn extract_file(
        &mut self,
        path: impl AsRef<Path>,
        taps: &Taps,
        out: &mut Features,
    ) -> Result<PatchGeometry, ImageExtractError> {
        read_still(path.as_ref(), &mut self.frame)?;
        let geometry = self.geometry(self.frame.width_px, self.frame.height_px)?;
        self.engine.extract(self.fit.fit(self.frame.view())?, taps, out)?;
        Ok(geometry)
    }

    /// Geometry of the patches in an image of this size.
    ///
    /// # Errors
    /// As [`Self::extract`].
    pub fn geometry(&self, width_px: usize, height_px: usize) -> Result<PatchGeometry, FitError> {
        self.fit.geometry(width_px, height_px)
    }

    /// The engine.
    pub fn engine(&self) -> &E {
        &self.engine
    }

    /// The engine, for its notes and settings.
    pub fn engine_mut(&mut self) -> &mut E {
        &mut self.engine
    }

    /// Returns the engine.
    pub fn into_engine(self) -> E {
        self.engine
    }
}
