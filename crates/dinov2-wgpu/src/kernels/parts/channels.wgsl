// Scale and bias of the output channels, applied to the f32 sums.
override N4: u32; // columns of the weights, in vectors; a multiple of the tile's
@group(0) @binding(2) var<storage, read> channels: array<vec4<f32>>; // [3, N4]: bias, scale, sum of int8 weights

fn scaled(sum: vec4<f32>, col4: u32) -> vec4<f32> {
    return fma(sum, channels[N4 + col4], channels[col4]);
}
