use super::{Batch, DataError, Dataset, Pixels, Unreadable};
use crate::views::centre_square;

/// Images of one batch.
const BATCH: usize = 8;

/// All images as centred squares of one side after the other, in batches whose steps count from 0, and those that cannot be read.
///
/// # Errors
/// An object store that is out of reach.
pub fn held_out(dataset: &Dataset, sides_px: &[usize]) -> Result<(Vec<Batch>, Vec<Unreadable>), DataError> {
    let (mut samples, mut unreadable) = (Vec::new(), Vec::new());
    let mut squares = vec![Vec::new(); sides_px.len()];
    for sample in 0..dataset.len() {
        match dataset.decode(sample) {
            Ok(image) => {
                samples.push(sample as u32);
                for (&side_px, squares) in sides_px.iter().zip(&mut squares) {
                    squares.push(centre_square(&image, side_px));
                }
            }
            Err(error @ DataError::Remote { .. }) => return Err(error),
            Err(error) => {
                unreadable.push(Unreadable { name: dataset.name(sample).into(), reason: error.to_string() });
            }
        }
    }
    let chunks = sides_px.iter().zip(&squares).flat_map(|(&side_px, squares)| {
        samples.chunks(BATCH).zip(squares.chunks(BATCH)).map(move |chunk| (side_px, chunk))
    });
    let batches = chunks.zip(0..).map(|((side_px, (samples, squares)), step)| Batch {
        step,
        samples: samples.to_vec(),
        student: Pixels { side_px, data: squares.concat() },
        teacher: None,
    });
    Ok((batches.collect(), unreadable))
}
