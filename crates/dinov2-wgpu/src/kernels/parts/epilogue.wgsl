// The activation function before outputs are written: 0 none, 1 GELU, 2 SwiGLU (columns are gate and value in
// turn, by vectors).
override ACTIVATION: u32;
override OUT4: u32; // row stride of the output, in vectors
override FIRST_ROW: u32; // row of the output that belongs to row 0 of the input
const GELU = 1u;
const SWIGLU = 2u;

// erf(x) as x times a ratio of polynomials in x^2, cut off at 1 (coefficients: dinov2-kernels, activation/mod.rs).
fn erf4(x: vec4<f32>) -> vec4<f32> {
    let bounded = clamp(x, vec4(-4.15), vec4(4.15));
    let square = bounded * bounded;
    var numerator = fma(vec4(2.0360033e-6), square, vec4(2.847428e-4));
    numerator = fma(numerator, square, vec4(3.7896086e-3));
    numerator = fma(numerator, square, vec4(0.05282001));
    numerator = fma(numerator, square, vec4(0.19105533));
    numerator = fma(numerator, square, vec4(1.1283792));
    var denominator = fma(vec4(3.7939004e-5), square, vec4(1.1671005e-3));
    denominator = fma(denominator, square, vec4(0.015017639));
    denominator = fma(denominator, square, vec4(0.114364125));
    denominator = fma(denominator, square, vec4(0.5026511));
    denominator = fma(denominator, square, vec4(1.0));
    return clamp(bounded * numerator / denominator, vec4(-1.0), vec4(1.0));
}

fn gelu4(x: vec4<f32>) -> vec4<f32> {
    let half_x = 0.5 * x;
    return fma(half_x, erf4(0.70710677 * x), half_x);
}

// x / (1 + e^-x); the exponent is bounded, so that nothing overflows.
fn silu4(x: vec4<f32>) -> vec4<f32> {
    return x / (1.0 + exp(-max(x, vec4(-80.0))));
}

// Writes two vectors of outputs of one row; for SwiGLU they are gate and value of one vector.
fn emit(input_row: u32, col_a: u32, a: vec4<f32>, b: vec4<f32>, col_b: u32) {
    let row = (FIRST_ROW + input_row) * OUT4;
    if ACTIVATION == SWIGLU {
        if col_a / 2 < OUT4 {
            finish(row + col_a / 2, silu4(a) * b);
        }
        return;
    }
    if col_a < OUT4 {
        finish(row + col_a, activated(a));
    }
    if col_b < OUT4 {
        finish(row + col_b, activated(b));
    }
}

fn activated(x: vec4<f32>) -> vec4<f32> {
    if ACTIVATION == GELU {
        return gelu4(x);
    }
    return x;
}
