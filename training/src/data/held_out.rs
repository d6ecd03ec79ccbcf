//! Held-out images as centred squares: what a run measures its student on.

use dinov2_files::chain;

use super::{Batch, DataError, Dataset, Image, Pixels, Unreadable};
use crate::views::{Sides, centre_square};

/// Images of one batch.
const BATCH: usize = 8;

/// All images as centred squares of the first sides; then, for each of the other sides, as many evenly spaced images as have no more
/// pixels together. Steps of the batches count from 0. Also returns the unreadable images.
///
/// # Errors
/// An object store that is out of reach.
pub fn held_out(dataset: &Dataset, sides: &[Sides]) -> Result<(Vec<Batch>, Vec<Unreadable>), DataError> {
    let (mut squares, mut unreadable) = (vec![Vec::new(); sides.len()], Vec::new());
    for sample in 0..dataset.len() {
        match dataset.decode(sample) {
            Ok(image) => {
                for (at, squares) in sides.iter().zip(&mut squares) {
                    if is_chosen(sample, dataset.len(), sides[0].student_px, at.student_px) {
                        squares.push((sample as u32, Square::of(&image, *at)));
                    }
                }
            }
            Err(error @ DataError::Remote { .. }) => return Err(error),
            Err(error) => {
                unreadable.push(Unreadable { name: dataset.name(sample).into(), reason: chain(&error) });
            }
        }
    }
    let chunks = sides.iter().zip(&squares);
    let chunks = chunks.flat_map(|(at, squares)| squares.chunks(BATCH).map(move |chunk| (*at, chunk)));
    let batches = chunks.zip(0..).map(|((at, chunk), step)| Batch {
        step,
        samples: chunk.iter().map(|(sample, _)| *sample).collect(),
        student: stack(at.student_px, chunk.iter().map(|(_, square)| &square.student)),
        teacher: at
            .teacher_px
            .map(|side_px| stack(side_px, chunk.iter().flat_map(|(_, square)| &square.teacher))),
    });
    Ok((batches.collect(), unreadable))
}

/// An image as both networks see it.
#[derive(Clone)]
struct Square {
    student: Vec<u8>,
    teacher: Option<Vec<u8>>,
}

impl Square {
    fn of(image: &Image, at: Sides) -> Self {
        Self {
            student: centre_square(image, at.student_px),
            teacher: at.teacher_px.map(|side_px| centre_square(image, side_px)),
        }
    }
}

fn stack<'a>(side_px: usize, squares: impl Iterator<Item = &'a Vec<u8>>) -> Pixels {
    Pixels { side_px, data: squares.flatten().copied().collect() }
}

/// Whether one of `count` images is used at a side, where all are used at `side_of_all_px`.
fn is_chosen(sample: usize, count: usize, side_of_all_px: usize, side_px: usize) -> bool {
    let most = (count * side_of_all_px * side_of_all_px / (side_px * side_px)).clamp(1, count);
    (sample + 1) * most / count > sample * most / count
}
