//! Video: the labels of a sequence's first frame are propagated by features alone (DAVIS 2017's semi-supervised protocol, as DINO uses
//! it) and scored by J and F.

use std::path::{Path, PathBuf};

use dinov2_eval::{LabelSet, Measure, Tracking, TrackingError, Unit};
use dinov2_heads::PropagationConfig;
use dinov2_io::{Frame, PairedImages, Size};

use super::ignore_label::{Ignore, in_words, name};
use super::images::{fitted, grid};
use super::pairs::read_pair;
use super::segmentation::{covered, new_fit};
use super::skipped::Skipped;
use super::{EvalError, LoadedModel};
use crate::progress::{note, task_bar};
use crate::statistics::mean;

/// Least frames of a sequence: the first and the last are not scored.
const LEAST_FRAMES: usize = 3;
/// Sequences of frames with label maps.
#[derive(Clone, Debug)]
pub struct Sequences {
    sequences: Vec<PairedImages>,
    /// Per sequence, the label of ignored pixels, if there is one.
    ignore: Vec<Option<u8>>,
    /// The background class; `None` if every class is an object.
    background: Option<u8>,
    size: Size,
}

/// J and F of every object, each the mean over its frames.
#[derive(Default)]
struct Scores {
    regions: Vec<f64>,
    boundaries: Vec<f64>,
    /// Labels of first frames.
    first: Option<LabelSet>,
    /// Sequences without an object in their first frame.
    empty: Vec<String>,
}

impl Sequences {
    /// Sequences from the folders of frames and of label maps: one sequence if they hold images, otherwise one for each of their
    /// subfolders.
    ///
    /// # Errors
    /// Unreadable folders, frames without label maps, sequences of fewer than three frames, or label maps with an
    /// ambiguous ignored label.
    pub fn open(
        frames: &Path,
        labels: &Path,
        background: Option<u8>,
        ignore: Ignore,
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
        let ignore = ignore.decide(&sequences, background)?;
        Ok(Self { sequences, ignore, background, size })
    }

    /// Size of the frames.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Measures a model. Labels are propagated from frame to frame, so a sequence with an unreadable file is left out whole.
    ///
    /// # Errors
    /// No readable sequence, frames that change their size or have label maps of another, first frames without objects, or
    /// an error of the engine.
    pub fn evaluate(&self, model: &mut LoadedModel) -> Result<Vec<Measure>, EvalError> {
        let mut scores = Scores::default();
        let frames = self.sequences.iter().map(PairedImages::len).sum();
        let bar = task_bar("sequences", model.name(), frames, "frames");
        let mut skipped = Skipped::new("sequences", "sequences", self.sequences.len());
        let mut done = 0;
        for (sequence, ignore) in self.sequences.iter().zip(&self.ignore) {
            if let Err(error) = self.track(sequence, *ignore, model, &mut scores, || bar.advance(1)) {
                bar.suspend(|| skipped.add(name(sequence), error))?;
            }
            done += sequence.len() as u64;
            bar.set_position(done);
        }
        bar.finish();
        skipped.finish(model)?;
        if scores.regions.is_empty() {
            return Err(self.no_objects(&scores));
        }
        if let Some(first) = scores.empty.first() {
            let (count, total) = (scores.empty.len(), self.sequences.len());
            let line = format!(
                "sequences: {count} of {total} without an object in the first frame, which do not count: {first}{}",
                if count > 1 { format!(" (+ {} more)", count - 1) } else { String::new() }
            );
            note(&line);
            model.note(line);
        }
        model.note(format!("sequences: {} objects", scores.regions.len()));
        let (task, regions, boundaries) =
            (format!("sequences {}", self.size), mean(&scores.regions), mean(&scores.boundaries));
        Ok(vec![
            Measure::new(&task, "J&F", Unit::Share, (regions + boundaries) / 2.0),
            Measure::new(&task, "J", Unit::Share, regions),
            Measure::new(&task, "F", Unit::Share, boundaries),
        ])
    }

    /// The error that names the labels of the first frames.
    fn no_objects(&self, scores: &Scores) -> EvalError {
        let mut got = in_words(&scores.first.unwrap_or([false; 256]));
        if let Some(label) = self.background {
            got.push_str(&format!("; {label} is the background (--background)"));
        }
        if let Some(label) = self.ignore.iter().flatten().next() {
            got.push_str(&format!("; {label} does not count (--ignore)"));
        }
        EvalError::input("sequences", "objects in the first frames", got)
    }

    /// Scores a sequence. `scores` changes only if the whole sequence succeeds.
    fn track(
        &self,
        sequence: &PairedImages,
        ignore: Option<u8>,
        model: &mut LoadedModel,
        scores: &mut Scores,
        mut done: impl FnMut(),
    ) -> Result<(), EvalError> {
        let patch_size = model.spec().patch_size;
        let (mut frame, mut fit) = (Frame::new(), new_fit(self.size, patch_size)?);
        let mut tracking: Option<Tracking> = None;
        let last = sequence.len() - 1;
        for (number, (image, path)) in sequence.iter().enumerate() {
            let labels = read_pair(image, path, &mut frame)?;
            let grid = grid(&fit, &frame, image)?;
            let labels = covered(labels, self.size, grid, patch_size);
            let threads = model.threads();
            let features = model.features(fitted(&mut fit, &frame, image)?)?;
            match &mut tracking {
                None => {
                    let config = PropagationConfig { threads, ..PropagationConfig::default() };
                    let first = scores.first.get_or_insert([false; 256]);
                    labels.pixels.iter().for_each(|label| first[usize::from(*label)] = true);
                    let features = (features.patches(), features.dim());
                    let size = (labels.width_px, labels.height_px);
                    tracking = Tracking::begin(
                        config,
                        grid,
                        features,
                        (&labels.pixels, size),
                        (ignore, self.background),
                    )
                    .map_err(wrong(path))?;
                    if tracking.is_none() {
                        let name = name(sequence);
                        let name = name.file_name().unwrap_or(name.as_os_str());
                        scores.empty.push(name.to_string_lossy().into_owned());
                        return Ok(());
                    }
                }
                Some(tracking) => {
                    if tracking.grid() != grid {
                        let (expected, got) = (tracking.grid().to_string(), grid.to_string());
                        let got = format!("{got} patches in {}", image.display());
                        return Err(EvalError::input(
                            "sequence",
                            format!("frames of {expected} patches"),
                            got,
                        ));
                    }
                    let size = (labels.width_px, labels.height_px);
                    let found = tracking.next_labels(features.patches(), size).map_err(wrong(path))?;
                    if number < last {
                        tracking.score(&found, (&labels.pixels, labels.width_px), ignore);
                    }
                }
            }
            done();
        }
        if let Some(tracking) = tracking {
            for [region, boundary] in tracking.means() {
                scores.regions.push(region);
                scores.boundaries.push(boundary);
            }
        }
        Ok(())
    }

    /// The protocol, as a note for the table.
    pub fn note(&self) -> String {
        let frames: usize = self.sequences.iter().map(PairedImages::len).sum();
        format!(
            "sequences: {} of {frames} frames, size {}; labels of the first frame carried on by the last 7 frames' patches, radius \
             12, top 5, weights exp(cosine / 0.1); means over objects, first and last frame not counted{}",
            self.sequences.len(),
            self.size,
            if self.ignore.contains(&None) { ", label 255 not ignored" } else { "" }
        )
    }
}

/// Adds the label map to what is wrong with it.
fn wrong(path: &Path) -> impl Fn(TrackingError) -> EvalError {
    move |source| EvalError::Tracking { source, path: path.display().to_string() }
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
