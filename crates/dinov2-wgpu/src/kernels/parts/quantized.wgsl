// Rows in 8 bits, asymmetric (dinov2-kernels, quantize/mod.rs): x = scale * (q - zero), q of 0 to 255, stored less 128 so
// that signed dot products take it.
@group(0) @binding(3) var<storage, read_write> quantized: array<u32>; // [rows, IN4], four values in a word
@group(0) @binding(4) var<storage, read_write> row_terms: array<vec2<f32>>; // [rows]: scale, zero - 128

struct Grid {
    scale: f32,
    inverse: f32,
    zero: f32,
}

// range: least and largest value of the row. A row of (almost) zeros has scale 0.
fn grid_of(range: vec2<f32>) -> Grid {
    let low = min(range.x, 0.0);
    let scale = (max(range.y, 0.0) - low) / 255.0;
    if scale < 1.1754944e-38 {
        return Grid(0.0, 0.0, 0.0);
    }
    return Grid(scale, 1.0 / scale, round(-low / scale));
}

fn quantize4(grid: Grid, values: vec4<f32>) -> u32 {
    let steps = clamp(round(values * grid.inverse) + grid.zero, vec4(0.0), vec4(255.0));
    return pack4xI8(vec4<i32>(steps) - 128);
}
