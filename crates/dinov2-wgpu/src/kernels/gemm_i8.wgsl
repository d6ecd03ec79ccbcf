// output = activation((input x weights) * scales + bias) on 8-bit integers, sums exact in 32 bits. Input: q - 128 of the
// asymmetric quantisation of quantise.wgsl; the zero point is taken off the sums by the columns' own sums.
override K16: u32; // columns of the input, in vectors of 16; a multiple of BLOCK16
override BLOCK16: u32; // columns of the input in a tile, in vectors of 16

@group(0) @binding(1) var<storage, read> weights: array<vec4<u32>>; // [4 * K16, N4], four rows of a column in a word
@group(0) @binding(3) var<storage, read> input: array<vec4<u32>>; // [rows, K16]
@group(0) @binding(5) var<storage, read> row_terms: array<vec2<f32>>; // [rows]: scale, zero - 128
var<workgroup> input_tile: array<vec4<u32>, TILE_ROWS * BLOCK16>; // [TILE_ROWS, BLOCK16]
var<workgroup> weight_tile: array<vec4<u32>, 4 * BLOCK16 * TILE_COLS4>; // [4 * BLOCK16, TILE_COLS4]

// Four more products for each of four columns.
fn dot4(x: u32, w: vec4<u32>) -> vec4<i32> {
    return vec4(dot4I8Packed(x, w.x), dot4I8Packed(x, w.y), dot4I8Packed(x, w.z), dot4I8Packed(x, w.w));
}

@compute @workgroup_size(THREAD_COLS, THREAD_ROWS)
fn gemm_i8(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = tile.y * TILE_ROWS;
    let first_col4 = tile.x * TILE_COLS4;
    // |sum| <= 128 * 127 * k, so k < 2^17 fits i32.
    var sum: array<vec4<i32>, MOST_SUMS>;
    for (var block = 0u; block < K16; block += BLOCK16) {
        for (var at = index; at < TILE_ROWS * BLOCK16; at += THREADS) {
            input_tile[at] = input[(first_row + at / BLOCK16) * K16 + block + at % BLOCK16];
        }
        for (var at = index; at < 4 * BLOCK16 * TILE_COLS4; at += THREADS) {
            weight_tile[at] = weights[(4 * block + at / TILE_COLS4) * N4 + first_col4 + at % TILE_COLS4];
        }
        workgroupBarrier();
        for (var k16 = 0u; k16 < BLOCK16; k16++) {
            for (var j = 0u; j < COLS4; j++) {
                let col = 4 * k16 * TILE_COLS4 + column(thread.x, j);
                let w0 = weight_tile[col];
                let w1 = weight_tile[col + TILE_COLS4];
                let w2 = weight_tile[col + 2 * TILE_COLS4];
                let w3 = weight_tile[col + 3 * TILE_COLS4];
                for (var i = 0u; i < ROWS; i++) {
                    let x = input_tile[(thread.y * ROWS + i) * BLOCK16 + k16];
                    sum[i * COLS4 + j] += dot4(x.x, w0) + dot4(x.y, w1) + dot4(x.z, w2) + dot4(x.w, w3);
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < ROWS; i++) {
        let row = first_row + thread.y * ROWS + i;
        let terms = row_terms[row];
        for (var j = 0u; j < COLS4; j++) {
            let col4 = first_col4 + column(thread.x, j);
            // The sums of weights are whole numbers below 2^24; |zero * sum| <= 128 * 127 * k as well.
            let total = sum[i * COLS4 + j] - i32(terms.y) * vec4<i32>(channels[2 * N4 + col4]);
            emit(row, col4, fma(vec4<f32>(total) * terms.x, channels[N4 + col4], channels[col4]));
        }
    }
}
