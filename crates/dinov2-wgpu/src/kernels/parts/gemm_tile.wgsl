// How a workgroup of a matrix product shares out its tile of the output: an invocation keeps ROWS x COLS4 vectors.
override N4: u32; // columns of the weights, in vectors; a multiple of the tile's
override THREAD_COLS: u32;
override THREAD_ROWS: u32;
override ROWS: u32;
override COLS4: u32; // even for SwiGLU
override TILE_ROWS: u32 = THREAD_ROWS * ROWS;
override TILE_COLS4: u32 = THREAD_COLS * COLS4;
override THREADS: u32 = THREAD_COLS * THREAD_ROWS;
const MOST_SUMS = 16u; // ROWS * COLS4 at most

@group(0) @binding(2) var<storage, read> channels: array<vec4<f32>>; // [3, N4]: bias, scale, sum of int8 weights

// Column j of an invocation, in vectors: gate and value side by side, others apart so that neighbours read neighbours.
fn column(thread: u32, j: u32) -> u32 {
    return select(thread + j * THREAD_COLS, thread * COLS4 + j, ACTIVATION == SWIGLU);
}
