//! Propagation of a first frame's labels by features alone (DAVIS 2017's semi-supervised protocol, as DINO uses it), and its J and F.

use dinov2_core::PatchGrid;
use dinov2_heads::{
    LabelError, LabelMap, LabelPropagation, PropagationConfig, PropagationError, UpsampleError, upsample,
};

use super::mask_scores::{Mask, boundary_measure, region_similarity};

/// Class of ignored pixels.
const NO_CLASS: u8 = u8::MAX;

/// Labels of a sequence's maps: `[256]`, true where the label occurs.
pub type LabelSet = [bool; 256];

/// The labels of a set, ascending.
pub fn labels_in(set: &LabelSet) -> Vec<u8> {
    (0..=u8::MAX).filter(|label| set[usize::from(*label)]).collect()
}

/// Errors of label propagation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackingError {
    /// More labels than there are classes.
    #[error("label map: expected at most {most} labels, got {got}")]
    Labels {
        /// Classes.
        most: u8,
        /// Labels of the first frame.
        got: usize,
    },
    /// A label map of another size.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// Features of another shape than the first frame's.
    #[error("label propagation")]
    Propagation(#[from] PropagationError),
    /// A map of another shape than its grid.
    #[error(transparent)]
    Upsample(#[from] UpsampleError),
}

/// A sequence whose labels are propagated frame by frame.
pub struct Tracking {
    propagation: LabelPropagation,
    grid: PatchGrid,
    /// Of every class, ascending.
    labels: Vec<u8>,
    objects: Vec<Object>,
    /// `[rows, cols, classes]`
    shares: Vec<f32>,
    /// Map of one class at the size of the frame.
    pixels: Vec<f32>,
}

/// Scores of an object, frame by frame.
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

impl Tracking {
    /// Begins with the first frame. `labels`: of its pixels, with width and height; `ignore` and `background`: labels that are no object,
    /// if any. `None` if the frame shows no object.
    ///
    /// # Errors
    /// More labels than classes, or features of another shape than the grid.
    pub fn begin(
        config: PropagationConfig,
        grid: PatchGrid,
        features: (&[f32], usize),
        (pixels, size): (&[u8], (usize, usize)),
        (ignore, background): (Option<u8>, Option<u8>),
    ) -> Result<Option<Self>, TrackingError> {
        let mut present: LabelSet = [false; 256];
        pixels.iter().for_each(|label| present[usize::from(*label)] = true);
        let labels: Vec<u8> =
            labels_in(&present).into_iter().filter(|label| Some(*label) != ignore).collect();
        let classes = labels.len();
        if classes > usize::from(NO_CLASS) {
            return Err(TrackingError::Labels { most: NO_CLASS, got: classes });
        }
        let mut class_of = [NO_CLASS; 256];
        (0..).zip(&labels).for_each(|(class, label)| class_of[usize::from(*label)] = class);
        let pixels: Vec<u8> = pixels.iter().map(|label| class_of[usize::from(*label)]).collect();
        let map = LabelMap::new(&pixels, size, classes, NO_CLASS)?;
        let mut shares = Vec::new();
        map.patch_shares(grid, &mut shares);
        let objects: Vec<Object> = labels
            .iter()
            .filter(|label| Some(**label) != background)
            .map(|label| Object::new(*label))
            .collect();
        if objects.is_empty() {
            return Ok(None);
        }
        let propagation = LabelPropagation::new(config, grid, features, (&shares, classes))?;
        Ok(Some(Self { propagation, grid, labels, objects, shares, pixels: Vec::new() }))
    }

    /// Grid of every frame.
    pub fn grid(&self) -> PatchGrid {
        self.grid
    }

    /// J and F of every object, each the mean over its frames.
    pub fn means(&self) -> impl Iterator<Item = [f64; 2]> {
        let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
        self.objects.iter().map(move |object| [mean(&object.regions), mean(&object.boundaries)])
    }

    /// The label of every pixel of the next frame, `[height_px, width_px]`.
    ///
    /// As in DINO's evaluation, every class's map is stretched to 0..=1 before the largest is taken, so that an object that fades
    /// is not absorbed by its surroundings.
    pub fn next_labels(&mut self, patches: &[f32], size: (usize, usize)) -> Result<Vec<u8>, TrackingError> {
        self.propagation.propagate(patches, &mut self.shares)?;
        let first = self.labels.first().copied().unwrap_or_default();
        let (mut found, mut largest) =
            (vec![first; size.0 * size.1], vec![f32::NEG_INFINITY; size.0 * size.1]);
        let mut map = Vec::with_capacity(self.grid.len());
        for (class, label) in self.labels.iter().enumerate() {
            map.clear();
            map.extend(self.shares.iter().skip(class).step_by(self.labels.len()));
            upsample(&map, self.grid, 1, size, &mut self.pixels)?;
            let most = self.pixels.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let least = self.pixels.iter().copied().fold(f32::INFINITY, f32::min);
            let stretch = if most > least { (most - least).recip() } else { 0.0 };
            for ((found, largest), value) in found.iter_mut().zip(&mut largest).zip(&self.pixels) {
                let value = (value - least) * stretch;
                if value > *largest {
                    (*found, *largest) = (*label, value);
                }
            }
        }
        Ok(found)
    }

    /// Adds J and F of a frame. Ignored pixels belong to no object.
    pub fn score(&mut self, found: &[u8], (truth, width_px): (&[u8], usize), ignore: Option<u8>) {
        let counted = |labels: &[u8], label: u8| -> Vec<bool> {
            let pixels = labels.iter().zip(truth);
            pixels.map(|(own, truth)| *own == label && Some(*truth) != ignore).collect()
        };
        for object in &mut self.objects {
            let (own, other) = (counted(found, object.label), counted(truth, object.label));
            let own = Mask { inside: &own, width_px };
            let other = Mask { inside: &other, width_px };
            object.regions.push(region_similarity(own, other));
            object.boundaries.push(boundary_measure(own, other));
        }
    }
}
