//! Which heads, MLP units and channels to keep: by energy. The energy of a matrix's input is measured on images in the f32 engine and
//! weighted with the squares of the weights that read it.

use dinov2_core::{Features, ImageView, MlpKind, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, Matrix};
use dinov2_weights::Model;

use super::PruneError;
use super::slice::Kept;
use crate::data::Pixels;

/// Mean squares of the inputs of every matrix of a block, `[k]` each.
#[derive(Clone, Default)]
struct Energies {
    qkv: Vec<f64>,
    projection: Vec<f64>,
    mlp_in: Vec<f64>,
    mlp_out: Vec<f64>,
}

/// What to keep for `spec` of a model with these blocks.
pub(super) fn choose(
    model: &Model,
    spec: &VitSpec,
    blocks: Vec<usize>,
    images: &Pixels,
    mut config: CpuConfig,
) -> Result<Kept, PruneError> {
    config.precision = CpuPrecision::F32;
    let energies = measure(model, images, config)?;
    let source = model.spec();
    let mut heads = Vec::new();
    let mut units = Vec::new();
    let mut channels = vec![0.0; source.dim];
    for &block in &blocks {
        let energy = &energies[block];
        let weights = |name: &str| Squares::read(model, &format!("blocks.{block}.{name}.weight"));
        let (mlp_in, mlp_out) = match source.mlp {
            MlpKind::Gelu => ("mlp.fc1", "mlp.fc2"),
            MlpKind::SwiGlu => ("mlp.w12", "mlp.w3"),
        };
        let by_column = weighted(&energy.projection, &weights("attn.proj")?.columns());
        let by_head: Vec<f64> = by_column.chunks(source.head_dim()).map(|head| head.iter().sum()).collect();
        heads.push(largest(&by_head, spec.heads));
        units.push(largest(&weighted(&energy.mlp_out, &weights(mlp_out)?.columns()), spec.mlp_hidden));
        for part in [
            weighted(&energy.qkv, &weights("attn.qkv")?.columns()),
            weighted(&energy.mlp_in, &weights(mlp_in)?.columns()),
        ] {
            // Every layer has the same weight, whatever the size of its numbers.
            let total: f64 = part.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            channels.iter_mut().zip(part).for_each(|(sum, part)| *sum += part / total);
        }
    }
    Ok(Kept { spec: spec.clone(), blocks, heads, units, channels: largest(&channels, spec.dim) })
}

/// A matrix whose squares are summed.
struct Squares {
    values: Vec<f32>,
    cols: usize,
}

impl Squares {
    fn read(model: &Model, name: &str) -> Result<Self, PruneError> {
        let cols = model.tensor(name)?.shape[1];
        Ok(Self { values: model.f32(name)?, cols })
    }

    /// Of every column.
    fn columns(&self) -> Vec<f64> {
        let mut sums = vec![0.0; self.cols];
        for row in self.values.chunks_exact(self.cols) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) * f64::from(*value));
        }
        sums
    }
}

fn weighted(energies: &[f64], weights: &[f64]) -> Vec<f64> {
    energies.iter().zip(weights).map(|(energy, weight)| energy * weight).collect()
}

/// Places of the `count` largest, ascending.
fn largest(scores: &[f64], count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    places.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    places.truncate(count);
    places.sort_unstable();
    places
}

fn measure(model: &Model, images: &Pixels, config: CpuConfig) -> Result<Vec<Energies>, PruneError> {
    let mut engine = CpuEngine::new(model, config)?;
    let mut energies = vec![Energies::default(); model.spec().depth];
    let mut features = Features::new();
    for image in images.images() {
        let view = ImageView::new(image, images.side_px, images.side_px)?;
        engine.extract_observed(view, &mut features, &mut |block, matrix, input| {
            let energy = &mut energies[block];
            let sums = match matrix {
                Matrix::Qkv => &mut energy.qkv,
                Matrix::Projection => &mut energy.projection,
                Matrix::MlpIn => &mut energy.mlp_in,
                Matrix::MlpOut => &mut energy.mlp_out,
            };
            add_squares(sums, input, features_width(model.spec(), matrix));
        })?;
    }
    Ok(energies)
}

fn features_width(spec: &VitSpec, matrix: Matrix) -> usize {
    if matrix == Matrix::MlpOut { spec.mlp_hidden } else { spec.dim }
}

fn add_squares(sums: &mut Vec<f64>, input: &[f32], width: usize) {
    sums.resize(width, 0.0);
    for row in input.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value) * f64::from(*value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_keep_their_order() {
        assert_eq!(largest(&[0.5, 3.0, 1.0, 3.0, 2.0], 3), [1, 3, 4]);
        assert_eq!(largest(&[1.0, 1.0, 1.0], 2), [0, 1]);
    }
}
