/// What one step trains on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of the step, from 0.
    pub step: u64,
    /// Samples shown: `[batch]`. One that could not be read is replaced by another.
    pub samples: Vec<u32>,
    /// What the student sees.
    pub student: Pixels,
    /// What the teacher sees: the same crops, mirrors and mixtures at another side, on which the changes of colour are made
    /// anew. None: the student's pixels.
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
