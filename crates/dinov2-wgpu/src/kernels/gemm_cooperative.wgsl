// output = activation(input x weights * scale + bias) on the device's own matrix units, f16 into f32: a subgroup computes
// 2 x 2 matrices at a time, straight from the caches, and passes the sums through workgroup memory to the epilogue.
override K: u32; // columns of the input, a multiple of SIDE
override SQUARE_ROWS: u32; // squares of 2 x 2 matrices in a workgroup's tile
override SQUARE_COLS: u32;
override THREADS: u32; // whole subgroups
override SLOTS: u32; // subgroups of a workgroup at most

@group(0) @binding(1) var<storage, read> weights: array<f16>; // [K, 4 * N4]
@group(0) @binding(3) var<storage, read> input: array<f16>; // [rows, K]
var<workgroup> sums: array<f32, SLOTS * 4 * SIDE * SIDE>; // [SLOTS, 2 * SIDE, 2 * SIDE]

fn sum4(at: u32) -> vec4<f32> {
    return vec4(sums[at], sums[at + 1], sums[at + 2], sums[at + 3]);
}

// Which square a subgroup computes is the same in all of its invocations, which the analysis cannot see.
@diagnostic(off, derivative_uniformity)
@compute @workgroup_size(THREADS)
fn gemm_cooperative(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    let n = 4 * N4;
    let slot = subgroup * 4 * SIDE * SIDE;
    for (var first = 0u; first < SQUARE_ROWS * SQUARE_COLS; first += subgroups) {
        // A subgroup without a square repeats the last one and does not write it.
        let square = min(first + subgroup, SQUARE_ROWS * SQUARE_COLS - 1);
        let row = (tile.y * SQUARE_ROWS + square / SQUARE_COLS) * 2 * SIDE;
        let col = (tile.x * SQUARE_COLS + square % SQUARE_COLS) * 2 * SIDE;
        var c00 = MatrixC();
        var c01 = MatrixC();
        var c10 = MatrixC();
        var c11 = MatrixC();
        for (var k = 0u; k < K; k += SIDE) {
            let a0 = coopLoadT<MatrixA>(&input[row * K + k], K);
            let a1 = coopLoadT<MatrixA>(&input[(row + SIDE) * K + k], K);
            let b0 = coopLoadT<MatrixB>(&weights[k * n + col], n);
            let b1 = coopLoadT<MatrixB>(&weights[k * n + col + SIDE], n);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c11 = coopMultiplyAdd(a1, b1, c11);
        }
        coopStoreT(c00, &sums[slot], 2 * SIDE);
        coopStoreT(c01, &sums[slot + SIDE], 2 * SIDE);
        coopStoreT(c10, &sums[slot + 2 * SIDE * SIDE], 2 * SIDE);
        coopStoreT(c11, &sums[slot + 2 * SIDE * SIDE + SIDE], 2 * SIDE);
        workgroupBarrier();
        if first + subgroup < SQUARE_ROWS * SQUARE_COLS {
            // Two vectors of columns at a time.
            for (var at = lane; at < 2 * SIDE * (SIDE / 4); at += lanes) {
                let of_row = at / (SIDE / 4);
                let pair = at % (SIDE / 4);
                let start = slot + of_row * 2 * SIDE + 8 * pair;
                let a = col / 4 + 2 * pair;
                emit(row + of_row, a, scaled(sum4(start), a), scaled(sum4(start + 4), a + 1), a + 1);
            }
        }
        workgroupBarrier();
    }
}
