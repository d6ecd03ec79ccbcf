// How a workgroup of a matrix product shares out its tile of the output: an invocation keeps four rows and two vectors of
// columns. They are named, not indexed: an array that a driver does not unroll would live in memory.
override THREAD_COLS: u32;
override THREAD_ROWS: u32;
override TILE_ROWS: u32 = 4 * THREAD_ROWS;
override TILE_COLS4: u32 = 2 * THREAD_COLS;
override THREADS: u32 = THREAD_COLS * THREAD_ROWS;

// First of the two vectors of columns of an invocation, and the distance to the second: gate and value side by side, others
// apart so that neighbours read neighbours.
fn first_column(thread: u32) -> u32 {
    return select(thread, 2 * thread, ACTIVATION == SWIGLU);
}

fn second_column(thread: u32) -> u32 {
    return select(thread + THREAD_COLS, 2 * thread + 1, ACTIVATION == SWIGLU);
}
