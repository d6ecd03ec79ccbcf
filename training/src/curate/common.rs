use dinov2_heads::Pca;

use super::points::dot;
use super::{CurateError, Embeddings, Points, Subset};

/// Images that the common part is measured on at most.
const MOST: usize = 20_000;
/// Images without which it cannot be told from what single images show.
const LEAST: usize = 64;

/// What all embeddings have in common, which hides what tells them apart: their mean and the directions of their largest
/// variances. Class tokens of a model that was tuned for something else differ little (cosines of .9 between unlike images); without
/// the common part the angle between unlike images is near a right one. (Mu and Viswanath 2018, arXiv 1702.01417, did so with words.)
pub(super) struct Common(Option<Pca>);

impl Common {
    /// Measures it on images evenly spread over those given, `directions` of them besides the mean. Too few images have none.
    pub(super) fn measure(
        embeddings: &Embeddings,
        usable: &[u32],
        directions: usize,
    ) -> Result<Self, CurateError> {
        if usable.len() < LEAST {
            return Ok(Self(None));
        }
        let count = usable.len().min(MOST);
        let sample: Vec<u32> = (0..count).map(|index| usable[index * usable.len() / count]).collect();
        let mut numbers = Vec::new();
        Subset { points: embeddings, members: &sample }.write_range(0..count, &mut numbers);
        // A principal component more or less costs nothing; none cannot be asked for.
        let pca =
            Pca::fit(&numbers, embeddings.dim(), directions.max(1)).map_err(|error| CurateError::Config {
                what: "embeddings",
                expected: "finite numbers, of more dimensions than are left out".into(),
                got: error.to_string(),
            })?;
        Ok(Self(Some(pca)))
    }

    /// Takes it away and scales what remains to length 1.
    pub(super) fn remove(&self, embeddings: &Embeddings, directions: usize) -> Embeddings {
        let Some(pca) = &self.0 else { return embeddings.clone() };
        let mut out = Embeddings::new(embeddings.dim());
        let mut vector = vec![0.0; embeddings.dim()];
        for row in 0..embeddings.len() {
            embeddings.write(row, &mut vector);
            vector.iter_mut().zip(pca.mean()).for_each(|(value, mean)| *value -= mean);
            for direction in pca.directions().chunks_exact(embeddings.dim()).take(directions) {
                let along = dot(&vector, direction);
                vector.iter_mut().zip(direction).for_each(|(value, part)| *value -= along * part);
            }
            out.push(&vector);
        }
        out
    }
}
