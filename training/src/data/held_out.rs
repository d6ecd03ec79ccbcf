use super::{Batch, DataError, Dataset, Pixels, Unreadable};
use crate::views::centre_square;

/// Images of one batch.
const BATCH: usize = 8;

/// All images as centred squares, in batches whose steps count from 0, and those that cannot be read.
///
/// # Errors
/// An object store that is out of reach.
pub fn held_out(dataset: &Dataset, side_px: usize) -> Result<(Vec<Batch>, Vec<Unreadable>), DataError> {
    let (mut squares, mut unreadable) = (Vec::new(), Vec::new());
    for sample in 0..dataset.len() {
        match dataset.decode(sample) {
            Ok(image) => squares.push((sample as u32, centre_square(&image, side_px))),
            Err(error @ DataError::Remote { .. }) => return Err(error),
            Err(error) => {
                unreadable.push(Unreadable { name: dataset.name(sample).into(), reason: error.to_string() });
            }
        }
    }
    let batches = squares.chunks(BATCH).zip(0..).map(|(squares, step)| Batch {
        step,
        samples: squares.iter().map(|(sample, _)| *sample).collect(),
        student: Pixels { side_px, data: squares.iter().flat_map(|(_, pixels)| pixels).copied().collect() },
        teacher: None,
    });
    Ok((batches.collect(), unreadable))
}
