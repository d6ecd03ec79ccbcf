// int8 weights, multiplied as floats; their scales are applied to the sums.
@group(0) @binding(1) var<storage, read> weights: array<u32>; // [4 * K4, N4], four columns in a word

fn weight4(index: u32) -> Real4 {
    return Real4(unpack4xI8(weights[index]));
}
