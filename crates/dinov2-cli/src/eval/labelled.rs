//! Folders of images with label maps.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use dinov2_edge::PatchGrid;
use dinov2_edge::heads::LabelMap;
use dinov2_edge::io::{Fit, Frame, Labels, PairedImages, Size};
use indicatif::ProgressBar;

use crate::args::source_of;

/// A folder of images and the folder of their label maps: `IMAGES,ANNOTATIONS`.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    images: PathBuf,
    annotations: PathBuf,
}

impl FromStr for Folders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(',') {
            Some((images, annotations)) if !images.is_empty() && !annotations.is_empty() => {
                Ok(Self { images: images.into(), annotations: annotations.into() })
            }
            _ => Err(format!("expected IMAGES,ANNOTATIONS, got {text:?}")),
        }
    }
}

impl Folders {
    /// `NAME` and `NAMEannot` in `data`, as CamVid is laid out.
    pub(crate) fn of(data: &Path, name: &str) -> Self {
        Self { images: data.join(name), annotations: data.join(format!("{name}annot")) }
    }
}

/// Images with label maps of the same names.
pub(crate) struct LabelledSet {
    name: &'static str,
    pairs: PairedImages,
}

/// Number of classes, and the label of ignored pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelRules {
    pub(crate) classes: usize,
    pub(crate) ignore: u8,
}

impl LabelledSet {
    /// Pairs the files of both folders by name, without opening them.
    pub(crate) fn open(name: &'static str, folders: &Folders) -> anyhow::Result<Self> {
        let pairs = PairedImages::open(&folders.images, &folders.annotations)
            .with_context(|| format!("{name} images"))?;
        Ok(Self { name, pairs })
    }

    pub(crate) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// One more than the largest class of all label maps; `None` if every pixel is ignored.
    pub(crate) fn count_classes(&self, ignore: u8) -> anyhow::Result<Option<usize>> {
        let mut largest = None;
        for (_, path) in self.pairs.iter() {
            let labels = Labels::read(path)?;
            largest = largest.max(labels.pixels.into_iter().filter(|label| *label != ignore).max());
        }
        Ok(largest.map(|label| usize::from(label) + 1))
    }

    /// Checks every label map, so that a wrong one fails before minutes of computing.
    pub(crate) fn check(&self, rules: LabelRules) -> anyhow::Result<()> {
        let mut labelled = false;
        for (_, path) in self.pairs.iter() {
            let labels = Labels::read(path)?;
            map(&labels, path, rules)?;
            labelled |= labels.pixels.iter().any(|label| *label != rules.ignore);
        }
        if !labelled {
            bail!(
                "{}: expected labelled pixels, got only those of the ignored class {}",
                self.name,
                rules.ignore
            );
        }
        Ok(())
    }

    /// Calls `visit` with every fitted image, its grid and its labels (the part of them that the grid covers).
    pub(crate) fn visit(
        &self,
        fit: &mut Fit,
        (size, patch_size): (Size, usize),
        rules: LabelRules,
        bar: &ProgressBar,
        mut visit: impl FnMut(dinov2_edge::ImageView<'_>, PatchGrid, LabelMap<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut frame = Frame::new();
        for (image, path) in self.pairs.iter() {
            let mut labels = Labels::read_with(image, path, &mut frame).context(self.name)?;
            let grid =
                fit.grid(frame.width_px, frame.height_px).with_context(|| image.display().to_string())?;
            if size == Size::Native {
                labels = labels.centre(grid.cols * patch_size, grid.rows * patch_size);
            }
            visit(
                fit.fit(frame.view()).with_context(|| source_of(&frame))?,
                grid,
                map(&labels, path, rules)?,
            )?;
            bar.inc(1);
        }
        Ok(())
    }
}

fn map<'a>(labels: &'a Labels, path: &Path, rules: LabelRules) -> anyhow::Result<LabelMap<'a>> {
    let size = (labels.width_px, labels.height_px);
    LabelMap::new(&labels.pixels, size, rules.classes, rules.ignore)
        .with_context(|| path.display().to_string())
}
