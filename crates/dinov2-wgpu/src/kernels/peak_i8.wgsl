// Peak rate of 8-bit dot products: ROUNDS rounds of eight independent chains per invocation, in registers only.
override ROUNDS: u32;
const LANES = 64u;

@group(0) @binding(1) var<storage, read_write> output: array<vec4<f32>>; // [invocations]

@compute @workgroup_size(LANES)
fn peak_i8(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = workgroup.x * LANES + lane;
    // Read, so that nothing is known before the kernel runs.
    let factor = bitcast<vec4<u32>>(output[at]);
    var a = vec4<i32>();
    var b = vec4<i32>();
    for (var round = 0u; round < ROUNDS; round++) {
        a.x += dot4I8Packed(factor.x, bitcast<u32>(a.x));
        a.y += dot4I8Packed(factor.y, bitcast<u32>(a.y));
        a.z += dot4I8Packed(factor.z, bitcast<u32>(a.z));
        a.w += dot4I8Packed(factor.w, bitcast<u32>(a.w));
        b.x += dot4I8Packed(factor.y, bitcast<u32>(b.x));
        b.y += dot4I8Packed(factor.z, bitcast<u32>(b.y));
        b.z += dot4I8Packed(factor.w, bitcast<u32>(b.z));
        b.w += dot4I8Packed(factor.x, bitcast<u32>(b.w));
    }
    output[at] = vec4<f32>(a + b);
}
