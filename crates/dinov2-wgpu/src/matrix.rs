//! A linear layer on the device.

use dinov2_weights::{Int8Rows, Model, StoredDtype};
use wgpu::Buffer;

use crate::kernels::Real;
use crate::layout::{CHANNEL_ALIGN, COLUMN_ALIGN};
use crate::{Gpu, GpuError};

/// What a matrix consists of on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// `[k, n]` floats.
    Float(Real),
    /// `[k, n]` i8, multiplied as floats.
    Int8AsFloat,
    /// `[k / 4, n, 4]` i8, for integer products.
    Int8,
}

/// Weights, transposed and padded, and what is applied to the sums.
pub(crate) struct Matrix {
    pub(crate) form: Form,
    pub(crate) weights: Buffer,
    /// `[3, n]`, f32: bias, scale, sum of the int8 weights.
    pub(crate) channels: Buffer,
    /// Columns of the input, padded.
    pub(crate) k: usize,
    /// Output channels, padded.
    pub(crate) n: usize,
}

enum Values {
    /// `[n, k]`.
    Floats(Vec<f32>),
    Int8(Int8Rows),
}

/// A layer as the model file has it, on its way to the device.
pub(crate) struct Layer {
    values: Values,
    /// `[n]`.
    bias: Vec<f32>,
    /// Multiplies the output channels, `[n]`: LayerScale.
    factors: Option<Vec<f32>>,
    /// Column of the input on the device, for each of the model's.
    columns: Vec<usize>,
    /// Output channel on the device, for each of the model's.
    channels: Vec<usize>,
}

impl Layer {
    /// `weight: [n, k]`.
    pub(crate) fn of_floats(weight: Vec<f32>, bias: Vec<f32>) -> Self {
        let (n, k) = (bias.len(), weight.len() / bias.len());
        Self {
            values: Values::Floats(weight),
            bias,
            factors: None,
            columns: (0..k).collect(),
            channels: (0..n).collect(),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_int8(rows: Int8Rows, bias: Vec<f32>) -> Self {
        let (n, k) = (bias.len(), rows.values.len() / bias.len());
        Self {
            values: Values::Int8(rows),
            bias,
            factors: None,
            columns: (0..k).collect(),
            channels: (0..n).collect(),
        }
    }

    /// Reads `NAME.weight` and `NAME.bias`: integers where the file has int8 or `int8` asks for them, else floats.
    pub(crate) fn read(model: &Model, name: &str, int8: bool) -> Result<Self, GpuError> {
        let weight = format!("{name}.weight");
        let bias = model.f32(&format!("{name}.bias"))?;
        let stored = model.tensor(&weight)?;
        let k = stored.shape[1];
        let values = match stored.dtype {
            StoredDtype::I8 => Values::Int8(model.int8(&weight)?),
            _ if int8 => Values::Int8(model.int8(&weight)?),
            _ => Values::Floats(model.f32(&weight)?),
        };
        let n = bias.len();
        Ok(Self { values, bias, factors: None, columns: (0..k).collect(), channels: (0..n).collect() })
    }

    /// Multiplies output channel `i` by `factors[i]`.
    pub(crate) fn scaled(mut self, factors: Vec<f32>) -> Self {
        self.factors = Some(factors);
        self
    }

    /// Where the model's columns of the input lie on the device.
    pub(crate) fn with_columns(mut self, columns: Vec<usize>) -> Self {
        self.columns = columns;
        self
    }

    /// Where the model's output channels lie on the device.
    pub(crate) fn with_channels(mut self, channels: Vec<usize>) -> Self {
        self.channels = channels;
        self
    }

    /// For the fused gate and value of a SwiGLU layer: four channels of each in turn.
    pub(crate) fn gated(self) -> Self {
        let half = self.channels.len() / 2;
        let place = |channel: usize| {
            let (at, value) = (channel % half, channel / half);
            8 * (at / 4) + 4 * value + at % 4
        };
        let channels = (0..2 * half).map(place).collect();
        self.with_channels(channels)
    }

    /// Uploads it; floats become `real`, integers stay what they are.
    pub(crate) fn upload(
        &self,
        gpu: &Gpu,
        what: &str,
        real: Real,
        int8_products: bool,
    ) -> Result<Matrix, GpuError> {
        let padded = |places: &[usize], align: usize| {
            places.iter().max().map_or(align, |most| (most + 1).next_multiple_of(align))
        };
        let (k, n) = (padded(&self.columns, COLUMN_ALIGN), padded(&self.channels, CHANNEL_ALIGN));
        let (form, bytes) = match &self.values {
            Values::Floats(values) => (Form::Float(real), self.float_bytes(values, real, k, n)),
            Values::Int8(rows) if int8_products => (Form::Int8, self.packed_bytes(&rows.values, k, n)),
            // Matrix units take nothing but f16, which holds these integers exactly.
            Values::Int8(rows) if real == Real::F16 && gpu.units().is_some() => {
                let halves: Vec<_> = rows.values.iter().map(|&value| half::f16::from(value)).collect();
                (Form::Float(real), bytemuck::cast_slice(&self.transposed(&halves, k, n)).to_vec())
            }
            Values::Int8(rows) => {
                (Form::Int8AsFloat, bytemuck::cast_vec(self.transposed(&rows.values, k, n)))
            }
        };
        let weights = gpu.upload(what, &bytes)?;
        let channels = gpu.upload(what, bytemuck::cast_slice(&self.channel_terms(n)))?;
        Ok(Matrix { form, weights, channels, k, n })
    }

    /// `[k, n]` from `[n, k]`.
    fn transposed<T: Copy + Default>(&self, values: &[T], k: usize, n: usize) -> Vec<T> {
        /// Channels at a time: writes of a cache line, reads of as many rows as prefetchers follow.
        const BLOCK: usize = 16;
        let mut out = vec![T::default(); k * n];
        let row_len = self.columns.len();
        let blocks = values.chunks(BLOCK * row_len).zip(self.channels.chunks(BLOCK));
        for (rows, channels) in blocks {
            for (at, &column) in self.columns.iter().enumerate() {
                let line = &mut out[column * n..][..n];
                for (row, &channel) in rows.chunks_exact(row_len).zip(channels) {
                    line[channel] = row[at];
                }
            }
        }
        out
    }

    fn float_bytes(&self, values: &[f32], real: Real, k: usize, n: usize) -> Vec<u8> {
        match real {
            Real::F32 => bytemuck::cast_slice(&self.transposed(values, k, n)).to_vec(),
            Real::F16 => {
                let halves: Vec<half::f16> = values.iter().map(|&value| half::f16::from_f32(value)).collect();
                bytemuck::cast_slice(&self.transposed(&halves, k, n)).to_vec()
            }
        }
    }

    /// `[k / 4, n, 4]`.
    fn packed_bytes(&self, values: &[i8], k: usize, n: usize) -> Vec<u8> {
        let rows = self.transposed(values, k, n);
        let groups = rows.chunks_exact(4 * n);
        groups.flat_map(|group| (0..4 * n).map(move |at| group[at % 4 * n + at / 4] as u8)).collect()
    }

    fn channel_terms(&self, n: usize) -> Vec<f32> {
        let mut terms = vec![0.0; 3 * n];
        let row_len = self.columns.len();
        for (at, &channel) in self.channels.iter().enumerate() {
            let factor = self.factors.as_ref().map_or(1.0, |factors| factors[at]);
            terms[channel] = self.bias[at] * factor;
            match &self.values {
                Values::Floats(_) => terms[n + channel] = factor,
                Values::Int8(rows) => {
                    terms[n + channel] = rows.scale[at] * factor;
                    let row = &rows.values[at * row_len..][..row_len];
                    // Below 2^24 for any width that a model can have, so exact.
                    terms[2 * n + channel] = row.iter().map(|&weight| i32::from(weight)).sum::<i32>() as f32;
                }
            }
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three columns, two channels.
    fn int8() -> Layer {
        let rows = Int8Rows { values: vec![1, 2, 3, -4, 5, -6], scale: vec![0.5, 0.25] };
        Layer::of_int8(rows, vec![10.0, 20.0])
    }

    #[test]
    fn weights_are_transposed_and_padded() {
        let layer = Layer::of_floats(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![0.0; 2]);
        let Values::Floats(values) = &layer.values else { panic!("floats") };
        let want = [1.0, 4.0, 0.0, 2.0, 5.0, 0.0, 3.0, 6.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(layer.transposed(values, 4, 3), want);
    }

    #[test]
    fn more_channels_than_are_transposed_at_a_time() {
        let (k, n) = (3, 37);
        let weight: Vec<f32> = (0..n * k).map(|at| at as f32).collect();
        let layer = Layer::of_floats(weight.clone(), vec![0.0; n]);
        let transposed = layer.transposed(&weight, k, n);
        for (column, channel) in (0..k).flat_map(|column| (0..n).map(move |channel| (column, channel))) {
            assert_eq!(transposed[column * n + channel], weight[channel * k + column]);
        }
    }

    #[test]
    fn places_of_columns_and_channels_are_kept() {
        let layer = Layer::of_floats(vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0])
            .with_columns(vec![0, 2])
            .with_channels(vec![1, 3]);
        let Values::Floats(values) = &layer.values else { panic!("floats") };
        let want = [[0.0, 1.0, 0.0, 3.0], [0.0; 4], [0.0, 2.0, 0.0, 4.0]];
        assert_eq!(layer.transposed(values, 3, 4), want.concat());
        assert_eq!(layer.channel_terms(4)[..4], [0.0, 5.0, 0.0, 6.0]);
    }

    #[test]
    fn four_integers_of_a_channel_share_a_word() {
        let layer = int8();
        let Values::Int8(rows) = &layer.values else { panic!("integers") };
        let packed = layer.packed_bytes(&rows.values, 8, 2);
        let want: [i8; 16] = [1, 2, 3, 0, -4, 5, -6, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(packed, want.map(|value| value as u8));
    }

    #[test]
    fn channels_have_bias_scale_and_sum() {
        let terms = int8().scaled(vec![2.0, -1.0]).channel_terms(3);
        assert_eq!(terms, [20.0, -20.0, 0.0, 1.0, -0.25, 0.0, 6.0, -5.0, 0.0]);
    }

    #[test]
    fn gate_and_value_lie_in_turn_by_vectors() {
        let layer = Layer::of_floats(vec![0.0; 12], vec![0.0; 12]).gated();
        assert_eq!(layer.channels, [0, 1, 2, 3, 8, 9, 4, 5, 6, 7, 12, 13]);
    }
}
