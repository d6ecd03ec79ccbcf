// Peak rate of the device's matrix units: ROUNDS products in each of four independent chains per subgroup.
override ROUNDS: u32;
const LANES = 64u;

@group(0) @binding(1) var<storage, read_write> output: array<f32>; // [workgroups, SIDE, SIDE]
var<workgroup> factors: array<f16, SIDE * SIDE>;

@compute @workgroup_size(LANES)
fn peak_cooperative(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let first = workgroup.x * SIDE * SIDE;
    for (var at = lane; at < SIDE * SIDE; at += LANES) {
        factors[at] = f16(output[first + at] * 1e-3);
    }
    workgroupBarrier();
    let a = coopLoadT<MatrixA>(&factors[0], SIDE);
    let b = coopLoadT<MatrixB>(&factors[0], SIDE);
    var c0 = MatrixC();
    var c1 = MatrixC();
    var c2 = MatrixC();
    var c3 = MatrixC();
    for (var round = 0u; round < ROUNDS; round++) {
        c0 = coopMultiplyAdd(a, b, c0);
        c1 = coopMultiplyAdd(a, b, c1);
        c2 = coopMultiplyAdd(a, b, c2);
        c3 = coopMultiplyAdd(a, b, c3);
    }
    coopStoreT(c0 + c1 + c2 + c3, &output[first], SIDE);
}
