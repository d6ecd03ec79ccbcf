// The output is added to the residual stream, which is f32 in every precision.
@group(0) @binding(4) var<storage, read_write> output: array<vec4<f32>>; // [rows, OUT4]

fn finish(index: u32, value: vec4<f32>) {
    output[index] += value;
}
