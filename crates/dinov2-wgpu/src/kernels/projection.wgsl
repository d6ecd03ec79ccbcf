// Coordinates of the patches' final tokens along a few directions, such as principal components; a coordinate per
// invocation.
override STRIDE4: u32; // row stride of tokens, mean and directions, in vectors; 0 beyond the width that counts
override PREFIX: u32; // tokens before the patches
override COMPONENTS: u32;
const LANES = 64u;

@group(0) @binding(1) var<storage, read> tokens: array<vec4<f32>>; // [rows, STRIDE4]
@group(0) @binding(2) var<storage, read> basis: array<vec4<f32>>; // [1 + COMPONENTS, STRIDE4]: mean, directions
@group(0) @binding(3) var<storage, read_write> output: array<f32>; // [patches, COMPONENTS]

@compute @workgroup_size(LANES)
fn projection(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (workgroup.y * workgroups.x + workgroup.x) * LANES + lane;
    let patch_index = at / COMPONENTS;
    if patch_index >= frame.patches {
        return;
    }
    let token = (PREFIX + patch_index) * STRIDE4;
    let direction = (1 + at % COMPONENTS) * STRIDE4;
    var coordinate = 0.0;
    for (var col4 = 0u; col4 < STRIDE4; col4++) {
        coordinate += dot(tokens[token + col4] - basis[col4], basis[direction + col4]);
    }
    output[at] = coordinate;
}
