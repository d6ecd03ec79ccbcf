// Copies columns of a matrix, without what pads heads and rows, to a dense f32 matrix: what taps read.
override WIDTH: u32; // columns of the output
override FIRST: u32; // first column of the input
override HEAD: u32; // columns that lie together
override HEAD_PITCH: u32; // columns from one such run to the next
override IN: u32; // row stride of the input
const LANES = 64u;

@group(0) @binding(1) var<storage, read> input: array<Real>; // [rows, IN]
@group(0) @binding(2) var<storage, read_write> output: array<f32>; // [tokens, WIDTH]

@compute @workgroup_size(LANES)
fn columns(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = (workgroup.y * workgroups.x + workgroup.x) * LANES + lane;
    let row = at / WIDTH;
    if row >= frame.tokens {
        return;
    }
    let col = at % WIDTH;
    output[at] = f32(input[row * IN + FIRST + col / HEAD * HEAD_PITCH + col % HEAD]);
}
