// Float weights in the number type of the products.
@group(0) @binding(1) var<storage, read> weights: array<Real4>; // [4 * K4, N4]

fn weight4(index: u32) -> Real4 {
    return weights[index];
}
