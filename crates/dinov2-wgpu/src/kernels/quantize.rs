//! `quantize.wgsl`: rows of floats to 8 bits, asymmetric, with scale and zero point per row, as `dinov2-kernels` defines it.

use wgpu::Buffer;

use super::{Access, FRAME, QUANTIZED, ROW, Real, Shader, linear};
use crate::step::{Stage, Step};
use crate::{Gpu, GpuError};

/// Rows in 8 bits.
pub(crate) struct Quantized {
    /// `[rows, columns]`, i8: q - 128. Columns vary from use to use.
    pub(crate) values: Buffer,
    /// `[rows, 2]`, f32: scale, zero - 128.
    pub(crate) row_terms: Buffer,
}

pub(crate) fn shader(real: Real) -> Shader {
    Shader {
        name: "quantize",
        parts: vec![real.part(), FRAME, ROW, QUANTIZED, include_str!("quantize.wgsl")],
        bindings: &[(0, Access::Uniform), (1, Access::Read), (3, Access::ReadWrite), (4, Access::ReadWrite)],
    }
}

/// Quantizes every row of `input: [tokens, columns]`.
pub(crate) fn step(
    gpu: &Gpu,
    real: Real,
    tokens: usize,
    columns: usize,
    frame: &Buffer,
    input: &Buffer,
    output: &Quantized,
) -> Result<Step, GpuError> {
    let constants = [("IN4", (columns / 4) as f64)];
    let buffers = [frame, input, &output.values, &output.row_terms].map(Into::into);
    Step::new(gpu, Stage::Quantize, &shader(real), &constants, &buffers, linear(tokens))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::test_util::{
        buffer, buffer_of_bytes, frame, gpu, numbers, padded, read, read_bytes, reals, rounded,
    };

    /// A row as it was quantized.
    pub(in super::super) struct Row<'a> {
        /// q - 128.
        pub(in super::super) values: &'a [i8],
        pub(in super::super) scale: f32,
        /// zero - 128.
        pub(in super::super) zero: f32,
    }

    impl Row<'_> {
        /// Compares with the definition (dinov2-kernels, quantize/mod.rs); a value between two steps may fall on either.
        pub(in super::super) fn check(&self, what: &str, want: &[f64], slack: f64) {
            let low = want.iter().copied().fold(0.0, f64::min);
            let high = want.iter().copied().fold(0.0, f64::max);
            let scale = (high - low) / 255.0;
            if scale < f64::from(f32::MIN_POSITIVE) {
                assert_eq!((self.scale, self.zero), (0.0, -128.0), "{what}: a row of zeros");
                assert!(self.values.iter().all(|&value| value == -128), "{what}: a row of zeros");
                return;
            }
            assert!(
                (f64::from(self.scale) / scale - 1.0).abs() < 1e-5,
                "{what}: scale {} {scale}",
                self.scale
            );
            let zero = f64::from(self.zero) + 128.0;
            assert!(is_rounded(zero, -low / scale, slack), "{what}: zero {zero} of {}", -low / scale);
            for (at, (&value, &want)) in self.values.iter().zip(want).enumerate() {
                let step = f64::from(value) + 128.0;
                let exact = want / scale;
                let matches = is_rounded(step - zero, exact, slack)
                    || step == 0.0 && exact + zero <= slack
                    || step == 255.0 && exact + zero >= 255.0 - slack;
                assert!(matches, "{what}: column {at}: {step} with zero {zero} of {exact}");
            }
        }
    }

    fn is_rounded(got: f64, exact: f64, slack: f64) -> bool {
        got.fract() == 0.0 && (got - exact).abs() <= 0.5 + slack
    }

    /// Room for `rows` rows and a row that must stay as it is.
    pub(in super::super) fn room(gpu: &Gpu, rows: usize, stride: usize) -> Quantized {
        Quantized {
            values: buffer_of_bytes(gpu, &vec![77; (rows + 1) * stride]),
            row_terms: buffer(gpu, Real::F32, &vec![7.0; (rows + 1) * 2]),
        }
    }

    /// Compares all rows, `want: [rows, cols]`.
    pub(in super::super) fn check_rows(
        gpu: &Gpu,
        what: &str,
        got: &Quantized,
        (want, cols): (&[f64], usize),
        slack: f64,
    ) {
        let (rows, stride) = (want.len() / cols, cols.next_multiple_of(32));
        let values: Vec<i8> = bytemuck::cast_vec(read_bytes(gpu, &got.values));
        let terms = read(gpu, Real::F32, &got.row_terms, (rows + 1) * 2);
        for (row, want) in want.chunks_exact(cols).enumerate() {
            let [scale, zero] = [terms[2 * row], terms[2 * row + 1]];
            let all = &values[row * stride..][..stride];
            Row { values: &all[..cols], scale, zero }.check(&format!("{what}, row {row}"), want, slack);
            // What pads a row is 0.
            assert!(
                all[cols..].iter().all(|&value| f32::from(value) == zero),
                "{what}: padding of row {row}"
            );
        }
        assert!(values[rows * stride..][..stride].iter().all(|&value| value == 77), "{what}: a row beyond");
        assert_eq!(terms[2 * rows..], [7.0, 7.0], "{what}: terms of a row beyond");
    }

    fn check(gpu: &Gpu, real: Real, what: &str, cols: usize, input: &[f32]) {
        let (rows, stride) = (input.len() / cols, cols.next_multiple_of(32));
        let input = rounded(real, input);
        let source = buffer(gpu, real, &padded(&input, cols, stride));
        let output = room(gpu, rows, stride);
        let step = step(gpu, real, rows, stride, &frame(gpu, rows), &source, &output).expect("a kernel");
        crate::test_util::run(gpu, &[step]);
        let want: Vec<f64> = input.iter().map(|&value| f64::from(value)).collect();
        check_rows(gpu, &format!("{what} as {real:?}"), &output, (&want, cols), 1e-3);
    }

    #[test]
    fn rows_are_quantized() {
        let Some(gpu) = gpu() else { return };
        for real in reals(gpu) {
            for cols in [1, 5, 45, 384, 1536] {
                check(gpu, real, "rows", cols, &numbers(1, 3 * cols));
            }
            let positive: Vec<f32> = numbers(2, 2 * 45).iter().map(|x| 1.5 + x).collect();
            check(gpu, real, "positive rows", 45, &positive);
            let negative: Vec<f32> = positive.iter().map(|x| -x).collect();
            check(gpu, real, "negative rows", 45, &negative);
            check(gpu, real, "rows of zeros", 45, &[0.0; 90]);
            let mut lonely = vec![0.0; 45];
            lonely[44] = -3.0;
            check(gpu, real, "one value", 45, &lonely);
        }
    }

    #[test]
    fn magnitudes_do_not_matter() {
        let Some(gpu) = gpu() else { return };
        for factor in [1e30f32, 1e4, 1e-10, 1e-30] {
            let input: Vec<f32> = numbers(3, 2 * 45).iter().map(|x| x * factor).collect();
            check(gpu, Real::F32, &format!("rows times {factor}"), 45, &input);
        }
        // A scale that is no normal number counts as 0.
        let tiny: Vec<f32> = numbers(4, 45).iter().map(|x| x * 1e-37).collect();
        check(gpu, Real::F32, "tiny rows", 45, &tiny);
    }
}
