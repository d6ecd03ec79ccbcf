// output = activation((input x weights) * scales + bias) on 8-bit integers, sums exact in 32 bits. Input: q - 128 of the
// asymmetric quantization of parts/quantized.wgsl; the zero point is taken off the sums by the columns' own sums.
override K16: u32; // columns of the input, in vectors of 16; a multiple of BLOCK16
override BLOCK16: u32; // columns of the input in a tile, in vectors of 16

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>; // [4 * K16, N4], four rows of a column in a word
@group(0) @binding(3) var<storage, read> input: array<vec4<u32>>; // [rows, K16]
@group(0) @binding(5) var<storage, read> row_terms: array<vec2<f32>>; // [rows]: scale, zero - 128
var<workgroup> input_tile: array<vec4<u32>, TILE_ROWS * BLOCK16>; // [TILE_ROWS, BLOCK16]
var<workgroup> weight_tile: array<vec4<u32>, 4 * BLOCK16 * TILE_COLS4>; // [4 * BLOCK16, TILE_COLS4]

fn load_tiles(first_row: u32, first_col4: u32, block: u32, index: u32) {
    for (var at = index; at < TILE_ROWS * BLOCK16; at += THREADS) {
        input_tile[at] = input[(first_row + at / BLOCK16) * K16 + block + at % BLOCK16];
    }
    for (var at = index; at < 4 * BLOCK16 * TILE_COLS4; at += THREADS) {
        weight_tile[at] = weights[(4 * block + at / TILE_COLS4) * N4 + first_col4 + at % TILE_COLS4];
    }
}

// Four more products for each of four columns.
fn dot4(x: u32, w: vec4<u32>) -> vec4<i32> {
    return vec4(dot4I8Packed(x, w.x), dot4I8Packed(x, w.y), dot4I8Packed(x, w.z), dot4I8Packed(x, w.w));
}

fn dot16(x: vec4<u32>, w0: vec4<u32>, w1: vec4<u32>, w2: vec4<u32>, w3: vec4<u32>) -> vec4<i32> {
    return dot4(x.x, w0) + dot4(x.y, w1) + dot4(x.z, w2) + dot4(x.w, w3);
}

// Sums of weights are whole numbers below 2^24; |zero * sum| <= 128 * 127 * k as well.
fn scaled_integers(sum: vec4<i32>, terms: vec2<f32>, col4: u32) -> vec4<f32> {
    let total = sum - i32(terms.y) * vec4<i32>(channels[2 * N4 + col4]);
    return scaled(vec4<f32>(total) * terms.x, col4);
}

@compute @workgroup_size(THREAD_COLS, THREAD_ROWS)
fn gemm_i8(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = tile.y * TILE_ROWS;
    let first_col4 = tile.x * TILE_COLS4;
    let col_a = first_column(thread.x);
    let col_b = second_column(thread.x);
    // Of rows 0 to 3 for columns a and b. |sum| <= 128 * 127 * k, so k < 2^17 fits i32.
    var a0 = vec4<i32>();
    var a1 = vec4<i32>();
    var a2 = vec4<i32>();
    var a3 = vec4<i32>();
    var b0 = vec4<i32>();
    var b1 = vec4<i32>();
    var b2 = vec4<i32>();
    var b3 = vec4<i32>();
    for (var block = 0u; block < K16; block += BLOCK16) {
        load_tiles(first_row, first_col4, block, index);
        workgroupBarrier();
        for (var k16 = 0u; k16 < BLOCK16; k16++) {
            let row = 4 * thread.y * BLOCK16 + k16;
            let x0 = input_tile[row];
            let x1 = input_tile[row + BLOCK16];
            let x2 = input_tile[row + 2 * BLOCK16];
            let x3 = input_tile[row + 3 * BLOCK16];
            let col = 4 * k16 * TILE_COLS4;
            var w0 = weight_tile[col + col_a];
            var w1 = weight_tile[col + TILE_COLS4 + col_a];
            var w2 = weight_tile[col + 2 * TILE_COLS4 + col_a];
            var w3 = weight_tile[col + 3 * TILE_COLS4 + col_a];
            a0 += dot16(x0, w0, w1, w2, w3);
            a1 += dot16(x1, w0, w1, w2, w3);
            a2 += dot16(x2, w0, w1, w2, w3);
            a3 += dot16(x3, w0, w1, w2, w3);
            w0 = weight_tile[col + col_b];
            w1 = weight_tile[col + TILE_COLS4 + col_b];
            w2 = weight_tile[col + 2 * TILE_COLS4 + col_b];
            w3 = weight_tile[col + 3 * TILE_COLS4 + col_b];
            b0 += dot16(x0, w0, w1, w2, w3);
            b1 += dot16(x1, w0, w1, w2, w3);
            b2 += dot16(x2, w0, w1, w2, w3);
            b3 += dot16(x3, w0, w1, w2, w3);
        }
        workgroupBarrier();
    }
    let row = first_row + 4 * thread.y;
    let a = first_col4 + col_a;
    let b = first_col4 + col_b;
    emit(row, a, scaled_integers(a0, row_terms[row], a), scaled_integers(b0, row_terms[row], b), b);
    emit(row + 1, a, scaled_integers(a1, row_terms[row + 1], a), scaled_integers(b1, row_terms[row + 1], b), b);
    emit(row + 2, a, scaled_integers(a2, row_terms[row + 2], a), scaled_integers(b2, row_terms[row + 2], b), b);
    emit(row + 3, a, scaled_integers(a3, row_terms[row + 3], a), scaled_integers(b3, row_terms[row + 3], b), b);
}
