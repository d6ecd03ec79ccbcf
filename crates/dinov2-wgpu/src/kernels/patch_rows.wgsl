// RGB u8 pixels to one row of centred pixels per patch, [patch, patch, 3] as they lie in the image. The patch embedding is
// then a matrix product: stride = kernel, no padding.
override PATCH: u32; // side in pixels
override OUT4: u32; // row stride of the output, in vectors
override CENTRE: f32; // subtracted from every pixel
const LANES = 64u;

@group(0) @binding(1) var<storage, read> pixels: array<u32>; // [height, line_bytes], four bytes in a word
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>; // [patches, OUT4]

fn centred(byte: u32) -> f32 {
    return f32(extractBits(pixels[byte / 4], 8 * (byte % 4), 8)) - CENTRE;
}

@compute @workgroup_size(LANES)
fn patch_rows(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (workgroup.y * workgroups.x + workgroup.x) * LANES + lane;
    let patch_index = at / OUT4;
    if patch_index >= frame.patches {
        return;
    }
    let corner = (patch_index / frame.grid_cols) * PATCH * frame.line_bytes + (patch_index % frame.grid_cols) * PATCH * 3;
    var values = vec4<f32>();
    for (var i = 0u; i < 4; i++) {
        let value = 4 * (at % OUT4) + i;
        if value < PATCH * PATCH * 3 {
            let line = value / (PATCH * 3);
            values[i] = centred(corner + line * frame.line_bytes + value % (PATCH * 3));
        }
    }
    output[at] = values;
}
