//! One matrix product under test, whichever family computes it.

use dinov2_weights::Int8Rows;
use wgpu::Buffer;

use super::Real;
use super::product::{Activation, Output, Product};
use crate::layout::{COLUMN_ALIGN, ROW_ALIGN};
use crate::matrix::{Form, Layer, Matrix};
use crate::step::{Stage, Step};
use crate::test_util::{assert_close, buffer, bytes, cropped, numbers, padded, read, rounded, run};
use crate::{Gpu, GpuError};

/// Rows of the output behind the last tile, which nothing may touch.
const ROWS_BEHIND: usize = 3;

#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) rows: usize,
    pub(super) k: usize,
    /// Channels of the matrix; of SwiGLU gate and value.
    pub(super) n: usize,
    pub(super) activation: Activation,
    pub(super) output: Output,
    pub(super) first_row: usize,
    pub(super) form: Form,
}

/// A matrix on the device, and what it stands for.
pub(super) struct Known {
    pub(super) matrix: Matrix,
    /// `[n, k]`, scales included.
    weight: Vec<f64>,
    /// `[n]`.
    bias: Vec<f64>,
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn activated(activation: Activation, gate: f64, value: f64) -> f64 {
    match activation {
        Activation::None => gate,
        Activation::Gelu => 0.5 * gate * libm::erfc(-gate * std::f64::consts::FRAC_1_SQRT_2),
        Activation::SwiGlu => gate / (1.0 + (-gate).exp()) * value,
    }
}

impl Case {
    /// A product without anything that is special.
    pub(super) fn plain(rows: usize, k: usize, n: usize, form: Form) -> Self {
        Self { rows, k, n, activation: Activation::None, output: Output::Store, first_row: 0, form }
    }

    pub(super) fn activated(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    pub(super) fn added(self) -> Self {
        Self { output: Output::Add, ..self }
    }

    pub(super) fn behind(self, first_row: usize) -> Self {
        Self { first_row, ..self }
    }

    /// For each of these tiles one case, beginning with case `first`: what takes long is to compile, not to run, so that a
    /// tile meets a few cases and every case some tile.
    pub(super) fn shared_out<T: Copy>(form: Form, first: usize, tiles: &[T]) -> Vec<(T, Self)> {
        tiles.iter().copied().zip(Self::all(form).into_iter().cycle().skip(first)).collect()
    }

    /// Awkward sizes, all activations and outputs.
    fn all(form: Form) -> [Self; 6] {
        let plain = |rows, k, n| Self::plain(rows, k, n, form);
        [
            plain(1, 5, 3),
            plain(31, 45, 64).activated(Activation::Gelu),
            plain(33, 32, 65).added(),
            plain(65, 45, 134).activated(Activation::SwiGlu),
            plain(33, 588, 135).behind(5),
            plain(65, 64, 65).activated(Activation::Gelu).added().behind(5),
        ]
    }

    /// Model columns of the output.
    fn cols(self) -> usize {
        if self.activation == Activation::SwiGlu { self.n / 2 } else { self.n }
    }

    /// Rows of the input on the device: whole tiles of any height.
    pub(super) fn tiled_rows(self) -> usize {
        self.rows.next_multiple_of(ROW_ALIGN)
    }

    pub(super) fn matrix(self, gpu: &Gpu, real: Real) -> Known {
        let Self { k, n, .. } = self;
        let bias = numbers(3, n);
        let (layer, weight) = match self.form {
            Form::Float(_) => {
                let weight: Vec<f32> = numbers(2, n * k).iter().map(|w| w / (k as f32).sqrt()).collect();
                let weight = rounded(real, &weight);
                (Layer::of_floats(weight.clone(), bias.clone()), wide(&weight))
            }
            Form::Int8AsFloat | Form::Int8 => {
                let scale: Vec<f32> = numbers(4, n).iter().map(|s| s.abs() / (64.0 * k as f32)).collect();
                let values = bytes(2, n * k);
                let weight = values.iter().zip(0..).map(|(&w, at)| f64::from(w) * f64::from(scale[at / k]));
                let weight = weight.collect();
                (Layer::of_int8(Int8Rows { values, scale }, bias.clone()), weight)
            }
        };
        let known = |layer: Layer, weight, bias| {
            let layer = if self.activation == Activation::SwiGlu { layer.gated() } else { layer };
            let matrix = layer.upload(gpu, "test", real, self.form == Form::Int8).expect("room for a matrix");
            Known { matrix, weight, bias }
        };
        if self.output == Output::Store {
            return known(layer, weight, wide(&bias));
        }
        // LayerScale, as in the products that are added to the stream.
        let factors = numbers(5, n);
        let weight = weight.iter().zip(0..).map(|(w, at)| w * f64::from(factors[at / k])).collect();
        let bias = bias.iter().zip(&factors).map(|(&b, &factor)| f64::from(b) * f64::from(factor)).collect();
        known(layer.scaled(factors), weight, bias)
    }

    /// `[rows, cols]` from `input: [rows, k]`.
    fn expected(self, known: &Known, input: &[f64]) -> Vec<f64> {
        let sum = |row: &[f64], channel: usize| {
            let weights = &known.weight[channel * self.k..][..self.k];
            known.bias[channel] + row.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>()
        };
        let cols = self.cols();
        let of_row = |row: &[f64]| -> Vec<f64> {
            (0..cols)
                .map(|col| {
                    let value =
                        if self.activation == Activation::SwiGlu { sum(row, cols + col) } else { 0.0 };
                    activated(self.activation, sum(row, col), value)
                })
                .collect()
        };
        input.chunks_exact(self.k).flat_map(of_row).collect()
    }

    /// Numbers for the input, `[rows, k]`, and their buffer, as `real`.
    pub(super) fn float_input(self, gpu: &Gpu, real: Real, stride: usize) -> (Vec<f64>, Buffer) {
        // Rows that fill the last tile up hold whatever was there.
        let values = rounded(real, &numbers(1, self.tiled_rows() * self.k));
        let input = buffer(gpu, real, &padded(&values, self.k, stride));
        (wide(&values[..self.rows * self.k]), input)
    }

    /// Runs the step that `build` makes for an output, and compares.
    pub(super) fn check(
        self,
        gpu: &Gpu,
        real: Real,
        known: &Known,
        input: &[f64],
        tolerance: f64,
        build: impl FnOnce(Product<'_>, &Buffer) -> Result<Step, GpuError>,
    ) {
        let out_stride = self.cols().next_multiple_of(COLUMN_ALIGN);
        let rows = self.first_row + self.tiled_rows() + ROWS_BEHIND;
        let stored = if self.output == Output::Add { Real::F32 } else { real };
        let before = rounded(stored, &numbers(6, rows * out_stride));
        let output = buffer(gpu, stored, &before);
        let product = Product {
            stage: Stage::Qkv,
            matrix: &known.matrix,
            activation: self.activation,
            output: self.output,
            out_stride,
            first_row: self.first_row,
            rows: self.rows,
        };
        let step = build(product, &output).expect("a kernel for the product");
        run(gpu, &[step]);
        let after = read(gpu, stored, &output, before.len());
        let mut want = self.expected(known, input);
        let counted = self.first_row * out_stride..(self.first_row + self.rows) * out_stride;
        if self.output == Output::Add {
            let stream = cropped(&before[counted.clone()], out_stride, self.cols());
            want.iter_mut().zip(stream).for_each(|(want, before)| *want += f64::from(before));
        }
        let what = format!("{real:?} {self:?}");
        assert_close(&what, &cropped(&after[counted.clone()], out_stride, self.cols()), &want, tolerance);
        self.check_rest(&what, &before, &after, out_stride);
    }

    /// What no column of the model belongs to.
    fn check_rest(self, what: &str, before: &[f32], after: &[f32], out_stride: usize) {
        for (row, (before, after)) in before.chunks(out_stride).zip(after.chunks(out_stride)).enumerate() {
            if row < self.first_row || row >= self.first_row + self.tiled_rows() {
                assert_eq!(before, after, "{what}: row {row} is none of the product's");
            } else if row < self.first_row + self.rows {
                let (padding, was) = (&after[self.cols()..], &before[self.cols()..]);
                let kept = self.output == Output::Add && padding == was;
                assert!(kept || padding.iter().all(|&value| value == 0.0), "{what}: padding of row {row}");
            }
        }
    }
}
