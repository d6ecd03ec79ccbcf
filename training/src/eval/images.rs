//! Reading and resizing images of tasks, and folders of classes.

use std::fs;
use std::path::{Path, PathBuf};

use dinov2_core::{ImageView, PatchGrid};
use dinov2_io::{Fit, Frame, Size, list_images, natural_order, read_still};

use super::EvalError;

/// Most classes of a folder of classes.
const MAX_CLASSES: usize = 65_536;

/// Reads and resizes images; keeps its buffers.
pub(super) struct Reader {
    frame: Frame,
    fit: Fit,
}

impl Reader {
    pub(super) fn new(size: Size, patch_size: usize) -> Result<Self, EvalError> {
        let wrong = |source| EvalError::Fit { source, path: size.to_string() };
        Ok(Self { frame: Frame::new(), fit: Fit::new(size, patch_size).map_err(wrong)? })
    }

    /// The fitted image of a file.
    pub(super) fn read(&mut self, path: &Path) -> Result<ImageView<'_>, EvalError> {
        read_still(path, &mut self.frame)?;
        fitted(&mut self.fit, &self.frame, path)
    }
}

/// An image at the size of `fit`.
pub(super) fn fitted<'a>(
    fit: &'a mut Fit,
    frame: &'a Frame,
    path: &Path,
) -> Result<ImageView<'a>, EvalError> {
    fit.fit(frame.view()).map_err(|source| EvalError::Fit { source, path: path.display().to_string() })
}

/// The grid to which `fit` brings a frame.
pub(super) fn grid(fit: &Fit, frame: &Frame, path: &Path) -> Result<PatchGrid, EvalError> {
    let wrong = |source| EvalError::Fit { source, path: path.display().to_string() };
    fit.grid(frame.width_px, frame.height_px).map_err(wrong)
}

/// Short side in pixels of a square image resized for patches of `patch_size`.
pub(super) fn short_side(size: Size, patch_size: usize) -> Result<usize, EvalError> {
    let side = match size {
        Size::Short(side) => side,
        Size::Exact { width_px, height_px } => width_px.max(height_px),
        Size::Native => return Err(EvalError::input("size", "one in pixels", "native")),
    };
    let target = size.target(side, side, patch_size);
    let (width, height) = target.map_err(|source| EvalError::Fit { source, path: format!("size {size}") })?;
    Ok(width.min(height))
}

/// At most `most` of some paths, evenly spaced.
pub(super) fn spread<T: Clone>(all: &[T], most: usize) -> Vec<T> {
    let taken = all.len().min(most);
    (0..taken).map(|index| all[index * all.len() / taken].clone()).collect()
}

/// A folder with a folder of images for every class.
#[derive(Clone, Debug)]
pub struct ClassFolders {
    names: Vec<String>,
    /// Image and class, class by class, each in natural order.
    images: Vec<(PathBuf, u32)>,
}

impl ClassFolders {
    /// Lists `folder` without opening images.
    ///
    /// # Errors
    /// A folder that cannot be read, holds fewer than two classes, or a class without images.
    pub fn open(folder: &Path) -> Result<Self, EvalError> {
        let mut classes = Vec::new();
        let refused = |error: std::io::Error| {
            EvalError::input("classes", "a folder that can be read", format!("{error}: {}", folder.display()))
        };
        for entry in fs::read_dir(folder).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') {
                classes.push((name, path));
            }
        }
        if !(2..=MAX_CLASSES).contains(&classes.len()) {
            let expected = format!("2..={MAX_CLASSES} folders of images, one per class");
            return Err(EvalError::input(
                "classes",
                expected,
                format!("{} in {}", classes.len(), folder.display()),
            ));
        }
        classes.sort_by(|left, right| natural_order(&left.0, &right.0));
        let mut images = Vec::new();
        for (class, (_, path)) in classes.iter().enumerate() {
            images.extend(list_images(path)?.into_iter().map(|image| (image, class as u32)));
        }
        Ok(Self { names: classes.into_iter().map(|(name, _)| name).collect(), images })
    }

    /// The same for validation images: classes have the numbers of `train`.
    ///
    /// # Errors
    /// As [`Self::open`], and a class that `train` does not have.
    pub fn open_as(folder: &Path, train: &Self) -> Result<Self, EvalError> {
        let own = Self::open(folder)?;
        let numbers = own.names.iter().map(|name| {
            let found = train.names.iter().position(|known| known == name);
            found.map(|number| number as u32).ok_or_else(|| {
                let got = format!("{name:?} in {}", folder.display());
                EvalError::input("classes", "those of the training images", got)
            })
        });
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        let images = own.images.into_iter().map(|(path, class)| (path, numbers[class as usize]));
        Ok(Self { images: images.collect(), names: train.names.clone() })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// Image and class.
    pub fn images(&self) -> &[(PathBuf, u32)] {
        &self.images
    }
}
