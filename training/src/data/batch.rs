//! Batches of square RGB views.

/// The images of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of the step, from 0.
    pub step: u64,
    /// Samples: `[batch]`. An unreadable one is replaced by another.
    pub samples: Vec<u32>,
    /// The student's views.
    pub student: Pixels,
    /// The teacher's views: the same crops, flips and mixtures at another side, with the changes of colour computed
    /// again. `None`: the student's pixels.
    pub teacher: Option<Pixels>,
}

/// Square RGB views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Side of each in pixels.
    pub side_px: usize,
    /// `[batch, side_px, side_px, 3]`
    pub data: Vec<u8>,
}

impl Pixels {
    /// The images, `[side_px, side_px, 3]` each.
    pub fn images(&self) -> impl Iterator<Item = &[u8]> {
        self.data.chunks_exact(self.side_px * self.side_px * 3)
    }
}
