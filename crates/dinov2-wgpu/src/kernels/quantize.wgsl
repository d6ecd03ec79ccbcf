// Quantizes rows of floats to 8 bits (parts/quantized.wgsl); a row per workgroup.
override IN4: u32; // row stride, in vectors
@group(0) @binding(1) var<storage, read> input: array<Real4>; // [rows, IN4]

@compute @workgroup_size(LANES)
fn quantize(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = row_of(workgroup, workgroups);
    if row >= frame.tokens {
        return;
    }
    var low = vec4<f32>();
    var high = vec4<f32>();
    for (var col4 = lane; col4 < IN4; col4 += LANES) {
        let value = vec4<f32>(input[row * IN4 + col4]);
        low = min(low, value);
        high = max(high, value);
    }
    let range = range_of_row(lane, min(min(low.x, low.y), min(low.z, low.w)), max(max(high.x, high.y), max(high.z, high.w)));
    let grid = grid_of(range);
    for (var col4 = lane; col4 < IN4; col4 += LANES) {
        quantized[row * IN4 + col4] = quantize4(grid, vec4<f32>(input[row * IN4 + col4]));
    }
    if lane == 0 {
        row_terms[row] = vec2(grid.scale, grid.zero - 128.0);
    }
}
