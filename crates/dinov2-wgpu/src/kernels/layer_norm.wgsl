// output = (input - mean) / sqrt(variance + eps) * gamma + beta per row; a row per workgroup.
@group(0) @binding(3) var<storage, read_write> output: array<Real4>; // [rows, IN4]

@compute @workgroup_size(LANES)
fn layer_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = row_of(workgroup, workgroups);
    if row >= frame.tokens {
        return;
    }
    let of_row = statistics(lane, row);
    for (var col4 = lane; col4 < IN4; col4 += LANES) {
        output[row * IN4 + col4] = Real4(normed(of_row, row, col4));
    }
}
