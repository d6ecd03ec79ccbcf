//! Pairs of images and label or depth maps in two folders.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::inputs::list_images;
use super::still::read_still;
use crate::{FormatError, Frame, Labels, SourceError};

/// Images and, in another folder, files of the same names (without the extension): label maps, depth maps.
#[derive(Clone, Debug)]
pub struct PairedImages {
    pairs: Vec<(PathBuf, PathBuf)>,
}

impl PairedImages {
    /// Pairs the files of both folders by name, in the natural order of the images. Nothing but names is read.
    ///
    /// # Errors
    /// A folder that cannot be read or holds no images, and a file without its counterpart.
    pub fn open(images: &Path, maps: &Path) -> Result<Self, SourceError> {
        let (image_files, map_files) = (list_images(images)?, list_images(maps)?);
        let wrong = |expected: String, got: String| SourceError::Input {
            expected,
            got: format!("{got} in {}", maps.display()),
        };
        let (images, annotations) = (image_files.len(), map_files.len());
        if images != annotations {
            let got = format!("{images} images and {annotations} annotations");
            return Err(wrong("as many annotations as images".into(), got));
        }
        let stem = |path: &Path| path.file_stem().map(OsString::from).unwrap_or_default();
        let mut by_stem: HashMap<OsString, PathBuf> =
            map_files.into_iter().map(|path| (stem(&path), path)).collect();
        let pairs = image_files.into_iter().map(|image| match by_stem.remove(&stem(&image)) {
            Some(map) => Ok((image, map)),
            None => Err(wrong(format!("an annotation {:?}", stem(&image)), "none".into())),
        });
        Ok(Self { pairs: pairs.collect::<Result<_, _>>()? })
    }

    /// Image and map of every pair.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Path, &Path)> {
        self.pairs.iter().map(|(image, map)| (image.as_path(), map.as_path()))
    }

    /// Number of pairs, positive.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }
}

impl Labels {
    /// Reads an image into `frame` (pixels, size and path) and the label map that goes with it.
    ///
    /// # Errors
    /// A file that cannot be read or is not what it should be, or labels of another size than the image.
    pub fn read_with(image: &Path, labels: &Path, frame: &mut Frame) -> Result<Self, SourceError> {
        read_still(image, frame)?;
        let map = Self::read(labels)?;
        if (map.width_px, map.height_px) == (frame.width_px, frame.height_px) {
            return Ok(map);
        }
        Err(SourceError::format(labels.display())(FormatError::Field {
            what: "annotation",
            expected: format!("labels of {}x{} as the image", frame.width_px, frame.height_px),
            got: format!("{}x{}", map.width_px, map.height_px),
        }))
    }
}
