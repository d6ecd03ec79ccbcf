// LayerNorm of a row: its mean, then its variance about that mean, as the definition has it.
override DIM: u32; // columns that count
override IN4: u32; // row stride of the input, in vectors
override EPS: f32;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>; // [rows, IN4]
@group(0) @binding(2) var<storage, read> norm: array<vec4<f32>>; // [2, IN4]: gamma, beta; 0 beyond DIM

struct Statistics {
    mean: f32,
    // Of 1 / standard deviation.
    factor: f32,
}

// 1 for columns that count, 0 for what pads the row.
fn counts(col4: u32) -> vec4<f32> {
    return select(vec4(0.0), vec4(1.0), 4 * col4 + vec4(0u, 1u, 2u, 3u) < vec4(DIM));
}

fn statistics(lane: u32, row: u32) -> Statistics {
    var sum = 0.0;
    for (var col4 = lane; col4 < IN4; col4 += LANES) {
        sum += dot(input[row * IN4 + col4], counts(col4));
    }
    let mean = sum_of_row(lane, sum) / f32(DIM);
    var squares = 0.0;
    for (var col4 = lane; col4 < IN4; col4 += LANES) {
        let distance = (input[row * IN4 + col4] - mean) * counts(col4);
        squares += dot(distance, distance);
    }
    return Statistics(mean, inverseSqrt(sum_of_row(lane, squares) / f32(DIM) + EPS));
}

// 0 beyond DIM.
fn normed(of_row: Statistics, row: u32, col4: u32) -> vec4<f32> {
    return fma((input[row * IN4 + col4] - of_row.mean) * of_row.factor, norm[col4], norm[IN4 + col4]);
}
