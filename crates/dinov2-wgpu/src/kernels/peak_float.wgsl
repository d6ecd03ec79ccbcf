// Peak rate of fused multiply-adds: ROUNDS rounds of eight independent chains per invocation, in registers only.
override ROUNDS: u32;
const LANES = 64u;

@group(0) @binding(1) var<storage, read_write> output: array<vec4<f32>>; // [invocations]

@compute @workgroup_size(LANES)
fn peak_float(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let at = workgroup.x * LANES + lane;
    // Read, so that nothing is known before the kernel runs. Factors below 1 keep every chain finite.
    let factor = Real4(output[at] * 1e-3);
    var a = factor;
    var b = factor;
    var c = factor;
    var d = factor;
    var e = factor;
    var f = factor;
    var g = factor;
    var h = factor;
    for (var round = 0u; round < ROUNDS; round++) {
        a = fma(a, factor, factor);
        b = fma(b, factor, a);
        c = fma(c, factor, factor);
        d = fma(d, factor, c);
        e = fma(e, factor, factor);
        f = fma(f, factor, e);
        g = fma(g, factor, factor);
        h = fma(h, factor, g);
    }
    output[at] = vec4<f32>(a + b + c + d + e + f + g + h);
}
