// The output is stored.
@group(0) @binding(4) var<storage, read_write> output: array<Real4>; // [rows, OUT4]

fn finish(index: u32, value: vec4<f32>) {
    output[index] = Real4(value);
}
