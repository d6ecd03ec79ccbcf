// Attention of the first token after the softmax; a head per workgroup.
override HEADS: u32;
override HEAD4: u32; // width of a head, in vectors
override QKV4: u32; // row stride of the input, in vectors: queries, keys, values, each [HEADS, HEAD4]
override SCALE: f32; // head_dim^-1/2 * log2(e): scores are exponents of 2

@group(0) @binding(1) var<storage, read> qkv: array<Real4>; // [rows, QKV4]
@group(0) @binding(2) var<storage, read_write> output: array<f32>; // [HEADS, tokens]

@compute @workgroup_size(LANES)
fn cls_attention(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let head = workgroup.x;
    var most = -3.0e38;
    for (var key = lane; key < frame.tokens; key += LANES) {
        var score = 0.0;
        for (var d = 0u; d < HEAD4; d++) {
            let query = vec4<f32>(qkv[head * HEAD4 + d]);
            score += dot(query, vec4<f32>(qkv[key * QKV4 + (HEADS + head) * HEAD4 + d]));
        }
        output[head * frame.tokens + key] = score * SCALE;
        most = max(most, score * SCALE);
    }
    let largest = range_of_row(lane, most, most).y;
    var part = 0.0;
    for (var key = lane; key < frame.tokens; key += LANES) {
        part += exp2(output[head * frame.tokens + key] - largest);
    }
    let total = sum_of_row(lane, part);
    for (var key = lane; key < frame.tokens; key += LANES) {
        let at = head * frame.tokens + key;
        output[at] = exp2(output[at] - largest) / total;
    }
}
