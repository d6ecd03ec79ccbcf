use super::{Batch, Dataset, Pixels};
use crate::views::centre_square;

/// Images of one batch.
const BATCH: usize = 8;

/// All images as centred squares, in batches whose steps count from 0; those that cannot be read are left out.
pub fn held_out(dataset: &Dataset, side_px: usize) -> Vec<Batch> {
    let readable =
        (0..dataset.len()).filter_map(|sample| Some((sample as u32, dataset.decode(sample).ok()?)));
    let squares: Vec<_> = readable.map(|(sample, image)| (sample, centre_square(&image, side_px))).collect();
    let batches = squares.chunks(BATCH).zip(0..).map(|(squares, step)| Batch {
        step,
        samples: squares.iter().map(|(sample, _)| *sample).collect(),
        student: Pixels { side_px, data: squares.iter().flat_map(|(_, pixels)| pixels).copied().collect() },
        teacher: None,
    });
    batches.collect()
}
