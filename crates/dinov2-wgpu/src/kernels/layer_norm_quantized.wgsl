// LayerNorm of a row (parts/norm.wgsl), then quantization to 8 bits (parts/quantized.wgsl); a row per workgroup.
@compute @workgroup_size(LANES)
fn layer_norm_quantized(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = row_of(workgroup, workgroups);
    if row >= frame.tokens {
        return;
    }
    let of_row = statistics(lane, row);
    var low = vec4<f32>();
    var high = vec4<f32>();
    for (var col4 = lane; col4 < IN4; col4 += LANES) {
        let value = normed(of_row, row, col4);
        low = min(low, value);
        high = max(high, value);
    }
    let range = range_of_row(lane, min(min(low.x, low.y), min(low.z, low.w)), max(max(high.x, high.y), max(high.z, high.w)));
    let grid = grid_of(range);
    for (var col4 = lane; col4 < IN4; col4 += LANES) {
        quantized[row * IN4 + col4] = quantize4(grid, normed(of_row, row, col4));
    }
    if lane == 0 {
        row_terms[row] = vec2(grid.scale, grid.zero - 128.0);
    }
}
