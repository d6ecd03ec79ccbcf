//! Features of images with known classes, and their accuracy with a linear classifier.

use dinov2_heads::{LinearProbe, ProbeConfig, ProbeError};

/// Numbers of neighbours that vote.
pub const NEIGHBOURS: [usize; 2] = [10, 20];
/// Without validation images, every fifth image of a class tests the classifier.
const HELD_OUT_EVERY: usize = 5;

/// A model's features of images with known classes.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// Width of a token.
    pub dim: usize,
    /// `[n, 2 * dim]`: the CLS token and the mean of the patch tokens.
    pub values: Vec<f32>,
    /// Class of each image, `[n]`.
    pub classes: Vec<u32>,
    /// `[n]`, places in the list of images: those that cannot be read are missing.
    pub places: Vec<usize>,
}

impl Embeddings {
    /// The CLS tokens, `[n, dim]`.
    pub fn cls(&self) -> Vec<f32> {
        let rows = self.values.chunks_exact(2 * self.dim);
        rows.flat_map(|row| &row[..self.dim]).copied().collect()
    }

    /// The features of some images.
    pub fn part(&self, wanted: impl Fn(usize) -> bool) -> Self {
        let width = 2 * self.dim;
        let chosen: Vec<usize> = (0..self.classes.len()).filter(|index| wanted(*index)).collect();
        Self {
            dim: self.dim,
            values: chosen.iter().flat_map(|index| &self.values[index * width..][..width]).copied().collect(),
            classes: chosen.iter().map(|index| self.classes[*index]).collect(),
            places: chosen.iter().map(|index| self.places[*index]).collect(),
        }
    }

    /// Share of `tested` whose class a linear classifier, fitted to these, finds. `progress` is called after each of its steps.
    ///
    /// # Errors
    /// A classifier that cannot be fitted.
    pub fn probe_accuracy(
        &self,
        tested: &Self,
        classes: usize,
        config: &ProbeConfig,
        progress: &mut dyn FnMut(),
    ) -> Result<f64, ProbeError> {
        let mut targets = vec![0.0; self.classes.len() * classes];
        for (row, class) in targets.chunks_exact_mut(classes).zip(&self.classes) {
            row[*class as usize] = 1.0;
        }
        let width = 2 * self.dim;
        let (probe, _) =
            LinearProbe::fit((&self.values, width), (&targets, classes), config, |_, _| progress())?;
        let mut logits = Vec::new();
        probe.logits_into(&tested.values, &mut logits)?;
        let right = logits.chunks_exact(classes).zip(&tested.classes).filter(|(logits, class)| {
            let best = (0..classes)
                .max_by(|left, right| logits[*left].total_cmp(&logits[*right]).then(right.cmp(left)));
            best == Some(**class as usize)
        });
        Ok(right.count() as f64 / tested.classes.len() as f64)
    }
}

/// Mean of `rows: [n, dim]`.
pub fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = (rows.len() / dim).max(1) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// True for the last of every five images of a class.
pub fn held_out(classes: &[u32]) -> Vec<bool> {
    let mut seen = std::collections::HashMap::new();
    let counted = classes.iter().map(|class| {
        let seen = seen.entry(*class).or_insert(0_usize);
        *seen += 1;
        seen.is_multiple_of(HELD_OUT_EVERY)
    });
    counted.collect()
}
