// output = activation(input x weights * scale + bias): a workgroup shares tiles of both factors, an invocation keeps
// ROWS x COLS4 vectors of sums.
override K4: u32; // columns of the input, in vectors; a multiple of BLOCK4
override BLOCK4: u32; // columns of the input in a tile, in vectors
override WIDEN: bool; // sum a tile in Real and widen it, for Real = f16

@group(0) @binding(3) var<storage, read> input: array<Real4>; // [rows, K4]
var<workgroup> input_tile: array<Real4, TILE_ROWS * BLOCK4>; // [TILE_ROWS, BLOCK4]
var<workgroup> weight_tile: array<Real4, 4 * BLOCK4 * TILE_COLS4>; // [4 * BLOCK4, TILE_COLS4]

@compute @workgroup_size(THREAD_COLS, THREAD_ROWS)
fn gemm_float(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let first_row = tile.y * TILE_ROWS;
    let first_col4 = tile.x * TILE_COLS4;
    var part: array<Real4, MOST_SUMS>;
    var sum: array<vec4<f32>, MOST_SUMS>;
    for (var block = 0u; block < K4; block += BLOCK4) {
        for (var at = index; at < TILE_ROWS * BLOCK4; at += THREADS) {
            input_tile[at] = input[(first_row + at / BLOCK4) * K4 + block + at % BLOCK4];
        }
        for (var at = index; at < 4 * BLOCK4 * TILE_COLS4; at += THREADS) {
            weight_tile[at] = weight4((4 * block + at / TILE_COLS4) * N4 + first_col4 + at % TILE_COLS4);
        }
        workgroupBarrier();
        for (var k4 = 0u; k4 < BLOCK4; k4++) {
            for (var j = 0u; j < COLS4; j++) {
                let col = 4 * k4 * TILE_COLS4 + column(thread.x, j);
                let w0 = weight_tile[col];
                let w1 = weight_tile[col + TILE_COLS4];
                let w2 = weight_tile[col + 2 * TILE_COLS4];
                let w3 = weight_tile[col + 3 * TILE_COLS4];
                for (var i = 0u; i < ROWS; i++) {
                    let x = input_tile[(thread.y * ROWS + i) * BLOCK4 + k4];
                    var value = part[i * COLS4 + j];
                    value = fma(Real4(x.x), w0, value);
                    value = fma(Real4(x.y), w1, value);
                    value = fma(Real4(x.z), w2, value);
                    part[i * COLS4 + j] = fma(Real4(x.w), w3, value);
                }
            }
        }
        if WIDEN {
            for (var at = 0u; at < ROWS * COLS4; at++) {
                sum[at] += vec4<f32>(part[at]);
                part[at] = Real4();
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < ROWS; i++) {
        for (var j = 0u; j < COLS4; j++) {
            let col4 = first_col4 + column(thread.x, j);
            let total = select(vec4<f32>(part[i * COLS4 + j]), sum[i * COLS4 + j], WIDEN);
            emit(first_row + thread.y * ROWS + i, col4, fma(total, channels[N4 + col4], channels[col4]));
        }
    }
}
