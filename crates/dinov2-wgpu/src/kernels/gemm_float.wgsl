// output = activation(input x weights * scale + bias): a workgroup shares tiles of both factors (parts/gemm_tile.wgsl).
override K4: u32; // columns of the input, in vectors; a multiple of BLOCK4
override BLOCK4: u32; // columns of the input in a tile, in vectors
override WIDEN: bool; // sum a tile's products in Real and widen them, for Real = f16

@group(0) @binding(3) var<storage, read> input: array<Real4>; // [rows, K4]
var<workgroup> input_tile: array<Real4, TILE_ROWS * BLOCK4>; // [TILE_ROWS, BLOCK4]
var<workgroup> weight_tile: array<Real4, 4 * BLOCK4 * TILE_COLS4>; // [4 * BLOCK4, TILE_COLS4]

fn load_tiles(first_row: u32, first_col4: u32, block: u32, index: u32) {
    for (var at = index; at < TILE_ROWS * BLOCK4; at += THREADS) {
        input_tile[at] = input[(first_row + at / BLOCK4) * K4 + block + at % BLOCK4];
    }
    for (var at = index; at < 4 * BLOCK4 * TILE_COLS4; at += THREADS) {
        weight_tile[at] = weight4((4 * block + at / TILE_COLS4) * N4 + first_col4 + at % TILE_COLS4);
    }
}

// Four more products for each of four columns.
fn multiply_add(x: Real4, w0: Real4, w1: Real4, w2: Real4, w3: Real4, sum: Real4) -> Real4 {
    return fma(Real4(x.w), w3, fma(Real4(x.z), w2, fma(Real4(x.y), w1, fma(Real4(x.x), w0, sum))));
}

@compute @workgroup_size(THREAD_COLS, THREAD_ROWS)
fn gemm_float(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = tile.y * TILE_ROWS;
    let first_col4 = tile.x * TILE_COLS4;
    let col_a = first_column(thread.x);
    let col_b = second_column(thread.x);
    // Sums of rows 0 to 3 for columns a and b; of WIDEN, those of one tile, and the totals.
    var a0 = Real4();
    var a1 = Real4();
    var a2 = Real4();
    var a3 = Real4();
    var b0 = Real4();
    var b1 = Real4();
    var b2 = Real4();
    var b3 = Real4();
    var total_a0 = vec4<f32>();
    var total_a1 = vec4<f32>();
    var total_a2 = vec4<f32>();
    var total_a3 = vec4<f32>();
    var total_b0 = vec4<f32>();
    var total_b1 = vec4<f32>();
    var total_b2 = vec4<f32>();
    var total_b3 = vec4<f32>();
    for (var block = 0u; block < K4; block += BLOCK4) {
        load_tiles(first_row, first_col4, block, index);
        workgroupBarrier();
        for (var k4 = 0u; k4 < BLOCK4; k4++) {
            let row = 4 * thread.y * BLOCK4 + k4;
            let x0 = input_tile[row];
            let x1 = input_tile[row + BLOCK4];
            let x2 = input_tile[row + 2 * BLOCK4];
            let x3 = input_tile[row + 3 * BLOCK4];
            let col = 4 * k4 * TILE_COLS4;
            var w0 = weight_tile[col + col_a];
            var w1 = weight_tile[col + TILE_COLS4 + col_a];
            var w2 = weight_tile[col + 2 * TILE_COLS4 + col_a];
            var w3 = weight_tile[col + 3 * TILE_COLS4 + col_a];
            a0 = multiply_add(x0, w0, w1, w2, w3, a0);
            a1 = multiply_add(x1, w0, w1, w2, w3, a1);
            a2 = multiply_add(x2, w0, w1, w2, w3, a2);
            a3 = multiply_add(x3, w0, w1, w2, w3, a3);
            w0 = weight_tile[col + col_b];
            w1 = weight_tile[col + TILE_COLS4 + col_b];
            w2 = weight_tile[col + 2 * TILE_COLS4 + col_b];
            w3 = weight_tile[col + 3 * TILE_COLS4 + col_b];
            b0 = multiply_add(x0, w0, w1, w2, w3, b0);
            b1 = multiply_add(x1, w0, w1, w2, w3, b1);
            b2 = multiply_add(x2, w0, w1, w2, w3, b2);
            b3 = multiply_add(x3, w0, w1, w2, w3, b3);
        }
        if WIDEN || block + BLOCK4 >= K4 {
            total_a0 += vec4<f32>(a0);
            total_a1 += vec4<f32>(a1);
            total_a2 += vec4<f32>(a2);
            total_a3 += vec4<f32>(a3);
            total_b0 += vec4<f32>(b0);
            total_b1 += vec4<f32>(b1);
            total_b2 += vec4<f32>(b2);
            total_b3 += vec4<f32>(b3);
            a0 = Real4();
            a1 = Real4();
            a2 = Real4();
            a3 = Real4();
            b0 = Real4();
            b1 = Real4();
            b2 = Real4();
            b3 = Real4();
        }
        workgroupBarrier();
    }
    let row = first_row + 4 * thread.y;
    let a = first_col4 + col_a;
    let b = first_col4 + col_b;
    emit(row, a, scaled(total_a0, a), scaled(total_b0, b), b);
    emit(row + 1, a, scaled(total_a1, a), scaled(total_b1, b), b);
    emit(row + 2, a, scaled(total_a2, a), scaled(total_b2, b), b);
    emit(row + 3, a, scaled(total_a3, a), scaled(total_b3, b), b);
}
