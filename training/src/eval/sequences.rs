//! Video: the labels of a sequence's first frame, carried on by features alone (DAVIS 2017's semi-supervised protocol, as DINO uses
//! it), scored by J and F.

use std::path::{Path, PathBuf};

use dinov2_core::PatchGrid;
use dinov2_heads::{LabelMap, LabelPropagation, PropagationConfig, upsample};
use dinov2_io::{Frame, Labels, PairedImages, Size};

use super::davis::{Mask, boundary_measure, region_similarity};
use super::images::{fitted, grid};
use super::left_out::LeftOut;
use super::pairs::read_pair;
use super::progress::bar;
use super::segmentation::{covered, new_fit};
use super::table::{Measure, Unit};
use super::{EvalError, Judged};
use crate::statistics::mean;

/// Frames of a sequence, at least: the first and the last do not count.
const LEAST_FRAMES: usize = 3;

/// Sequences of frames with label maps.
#[derive(Clone, Debug)]
pub struct Sequences {
    sequences: Vec<PairedImages>,
    /// The class that is no object; none if all are.
    background: Option<u8>,
    /// Label of pixels that do not count.
    ignore: u8,
    size: Size,
}

/// J and F of every object, each the mean over its frames.
#[derive(Default)]
struct Scores {
    regions: Vec<f64>,
    boundaries: Vec<f64>,
}

impl Sequences {
    /// Sequences from the folders of frames and of label maps: one sequence if they hold images, otherwise one for each of their
    /// subfolders.
    ///
    /// # Errors
    /// Folders that cannot be read, frames without label maps, or sequences of fewer than three frames.
    pub fn open(
        frames: &Path,
        labels: &Path,
        background: Option<u8>,
        ignore: u8,
        size: Size,
    ) -> Result<Self, EvalError> {
        let folders = subfolders(frames)?;
        let sequences = if folders.is_empty() {
            vec![PairedImages::open(frames, labels)?]
        } else {
            let open = |name: &PathBuf| PairedImages::open(&frames.join(name), &labels.join(name));
            folders.iter().map(open).collect::<Result<Vec<_>, _>>()?
        };
        for sequence in &sequences {
            if sequence.len() < LEAST_FRAMES {
                let first = sequence.iter().next().map(|(frame, _)| frame.display().to_string());
                let got = format!("{} with {}", sequence.len(), first.unwrap_or_default());
                let expected = format!("sequences of at least {LEAST_FRAMES} frames");
                return Err(EvalError::input("sequences", expected, got));
            }
        }
        Ok(Self { sequences, background, ignore, size })
    }

    /// Size of the frames.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Judges a model. Labels are carried from frame to frame, so a sequence with a file that cannot be read is left out whole.
    ///
    /// # Errors
    /// No sequence that can be read, frames that change their size or have label maps of another, first frames without objects, or
    /// what the engine reports.
    pub fn judge(&self, judged: &mut Judged) -> Result<Vec<Measure>, EvalError> {
        let mut scores = Scores::default();
        let frames = self.sequences.iter().map(PairedImages::len).sum();
        let bar = bar("sequences", judged.name(), frames, "frames");
        let mut left_out = LeftOut::new("sequences", "sequences", self.sequences.len());
        let mut done = 0;
        for sequence in &self.sequences {
            if let Err(error) = self.follow(sequence, judged, &mut scores, || bar.inc(1)) {
                bar.suspend(|| left_out.add(folder(sequence), error))?;
            }
            done += sequence.len() as u64;
            bar.set_position(done);
        }
        bar.finish_and_clear();
        left_out.finish(judged)?;
        if scores.regions.is_empty() {
            return Err(EvalError::input("sequences", "objects in the first frames", "none"));
        }
        let (task, regions, boundaries) =
            (format!("sequences {}", self.size), mean(&scores.regions), mean(&scores.boundaries));
        Ok(vec![
            Measure::new(&task, "J&F", Unit::Share, (regions + boundaries) / 2.0),
            Measure::new(&task, "J", Unit::Share, regions),
            Measure::new(&task, "F", Unit::Share, boundaries),
        ])
    }

    /// Adds to `scores` at the end alone.
    fn follow(
        &self,
        sequence: &PairedImages,
        judged: &mut Judged,
        scores: &mut Scores,
        mut done: impl FnMut(),
    ) -> Result<(), EvalError> {
        let patch_size = judged.spec().patch_size;
        let (mut frame, mut fit) = (Frame::new(), new_fit(self.size, patch_size)?);
        let mut following: Option<Following> = None;
        let last = sequence.len() - 1;
        for (number, (image, path)) in sequence.iter().enumerate() {
            let labels = read_pair(image, path, &mut frame)?;
            let grid = grid(&fit, &frame, image)?;
            let labels = covered(labels, self.size, grid, patch_size);
            let threads = judged.threads();
            let features = judged.features(fitted(&mut fit, &frame, image)?)?;
            match &mut following {
                None => {
                    let config = PropagationConfig { threads, ..PropagationConfig::default() };
                    following =
                        self.begin(config, grid, (features.patches(), features.dim()), &labels, path)?;
                    if following.is_none() {
                        return Ok(());
                    }
                }
                Some(following) => {
                    if following.grid != grid {
                        let (expected, got) = (following.grid.to_string(), grid.to_string());
                        let got = format!("{got} patches in {}", image.display());
                        return Err(EvalError::input(
                            "sequence",
                            format!("frames of {expected} patches"),
                            got,
                        ));
                    }
                    let found = following.find(features.patches(), (labels.width_px, labels.height_px))?;
                    if number < last {
                        following.score(&found, &labels, self.ignore);
                    }
                }
            }
            done();
        }
        if let Some(following) = following {
            scores.regions.extend(following.objects.iter().map(|object| mean(&object.regions)));
            scores.boundaries.extend(following.objects.iter().map(|object| mean(&object.boundaries)));
        }
        Ok(())
    }

    /// None if the first frame shows no object.
    fn begin(
        &self,
        config: PropagationConfig,
        grid: PatchGrid,
        features: (&[f32], usize),
        labels: &Labels,
        path: &Path,
    ) -> Result<Option<Following>, EvalError> {
        let mut there = [false; 256];
        labels.pixels.iter().for_each(|label| there[usize::from(*label)] = true);
        let known = (0..=u8::MAX).filter(|label| there[usize::from(*label)] && *label != self.ignore);
        let Some(largest) = known.clone().max() else { return Ok(None) };
        let classes = usize::from(largest) + 1;
        let map = LabelMap::new(&labels.pixels, (labels.width_px, labels.height_px), classes, self.ignore)
            .map_err(|error| EvalError::Label { error, path: path.display().to_string() })?;
        let mut shares = Vec::new();
        map.patch_shares(grid, &mut shares);
        let propagation = LabelPropagation::new(config, grid, features, (&shares, classes))?;
        let objects: Vec<Object> =
            known.filter(|label| Some(*label) != self.background).map(Object::new).collect();
        let following = Following { propagation, grid, classes, objects, shares, pixels: Vec::new() };
        Ok((!following.objects.is_empty()).then_some(following))
    }

    /// How it is measured.
    pub fn note(&self) -> String {
        let frames: usize = self.sequences.iter().map(PairedImages::len).sum();
        format!(
            "sequences: {} of {frames} frames, size {}; labels of the first frame carried on by the last 7 frames' patches, radius \
             12, top 5, weights exp(cosine / 0.1); means over objects, first and last frame not counted",
            self.sequences.len(),
            self.size
        )
    }
}

/// A sequence on the way.
struct Following {
    propagation: LabelPropagation,
    grid: PatchGrid,
    classes: usize,
    objects: Vec<Object>,
    /// `[rows, cols, classes]`
    shares: Vec<f32>,
    /// One class at the size of the frame.
    pixels: Vec<f32>,
}

/// What was found of an object, frame by frame.
struct Object {
    label: u8,
    regions: Vec<f64>,
    boundaries: Vec<f64>,
}

impl Object {
    fn new(label: u8) -> Self {
        Self { label, regions: Vec::new(), boundaries: Vec::new() }
    }
}

impl Following {
    /// The class of every pixel of the next frame, `[height_px, width_px]`.
    ///
    /// As in DINO's evaluation, every class' map is stretched to 0..=1 before the largest is taken, so that a thing which fades
    /// is not swallowed by what surrounds it.
    fn find(&mut self, patches: &[f32], size: (usize, usize)) -> Result<Vec<u8>, EvalError> {
        self.propagation.propagate(patches, &mut self.shares)?;
        let (mut found, mut largest) = (vec![0; size.0 * size.1], vec![f32::NEG_INFINITY; size.0 * size.1]);
        let mut map = Vec::with_capacity(self.grid.len());
        for class in 0..self.classes {
            map.clear();
            map.extend(self.shares.iter().skip(class).step_by(self.classes));
            upsample(&map, self.grid, 1, size, &mut self.pixels)?;
            let most = self.pixels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let least = self.pixels.iter().copied().fold(f32::INFINITY, f32::min);
            let stretch = if most > least { (most - least).recip() } else { 0.0 };
            for ((found, largest), value) in found.iter_mut().zip(&mut largest).zip(&self.pixels) {
                let value = (value - least) * stretch;
                if value > *largest {
                    (*found, *largest) = (class as u8, value);
                }
            }
        }
        Ok(found)
    }

    /// Adds J and F of a frame. Ignored pixels belong to nothing.
    fn score(&mut self, found: &[u8], truth: &Labels, ignore: u8) {
        let counted = |labels: &[u8], label: u8| -> Vec<bool> {
            labels.iter().zip(&truth.pixels).map(|(own, truth)| *own == label && *truth != ignore).collect()
        };
        for object in &mut self.objects {
            let (own, other) = (counted(found, object.label), counted(&truth.pixels, object.label));
            let own = Mask { inside: &own, width_px: truth.width_px };
            let other = Mask { inside: &other, width_px: truth.width_px };
            object.regions.push(region_similarity(own, other));
            object.boundaries.push(boundary_measure(own, other));
        }
    }
}

/// The folder of a sequence's frames.
fn folder(sequence: &PairedImages) -> &Path {
    let first = sequence.iter().next().map(|(frame, _)| frame);
    first.and_then(Path::parent).unwrap_or(Path::new(""))
}

/// Names of the folders in a folder, in natural order, without hidden ones.
fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let refused = |error: std::io::Error| {
        EvalError::input("sequences", "a folder that can be read", format!("{error}: {}", folder.display()))
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_by(|left, right| dinov2_io::natural_order(left, right));
    Ok(names.into_iter().map(PathBuf::from).collect())
}
