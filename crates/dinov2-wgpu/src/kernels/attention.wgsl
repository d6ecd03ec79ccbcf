// Attention of one head for a tile of queries, with the online softmax of FlashAttention (Dao et al. 2022, algorithm 1):
// keys and values pass through workgroup memory block by block, no n x n matrix exists. 8 x 8 invocations; each keeps
// ROWS queries, for them KEYS / 8 scores of a block and a share of the output. All sums are f32.
override HEADS: u32;
override HEAD4: u32; // width of a head, in vectors
override QKV4: u32; // row stride of the input, in vectors: queries, keys, values, each [HEADS, HEAD4]
override OUT4: u32; // row stride of the output, in vectors
override SCALE: f32; // head_dim^-1/2 * log2(e): scores are exponents of 2
override ROWS: u32; // queries of an invocation
override KEYS: u32; // keys of a block: 16 or 32
const SIDE = 8u;
const MOST_ROWS = 4u;
const MOST_KEYS = 4u; // KEYS / SIDE at most
const MOST_PARTS = 4u; // HEAD4 / SIDE at most, rounded up
const MINUS_INFINITY = -3.0e38;
override QUERIES: u32 = SIDE * ROWS;
override PITCH: u32 = HEAD4 + 1; // neighbouring keys in different banks

@group(0) @binding(1) var<storage, read> qkv: array<Real4>; // [rows, QKV4]
@group(0) @binding(2) var<storage, read_write> output: array<Real4>; // [rows, OUT4]
var<workgroup> queries: array<Real4, QUERIES * HEAD4>; // [QUERIES, HEAD4]
var<workgroup> block: array<Real4, KEYS * PITCH>; // keys, then values: [KEYS, PITCH]
var<workgroup> weights: array<f32, QUERIES * KEYS>; // [QUERIES, KEYS]
var<workgroup> largest_of: array<f32, QUERIES * SIDE>; // [QUERIES, SIDE], per column of invocations

// part: 1 for keys, 2 for values. Rows beyond the last token are whatever the buffer holds: finite.
fn load_block(part: u32, head: u32, first_key: u32, index: u32) {
    for (var at = index; at < KEYS * HEAD4; at += SIDE * SIDE) {
        let key = at / HEAD4;
        let row = min(first_key + key, frame.tokens - 1);
        block[key * PITCH + at % HEAD4] = qkv[row * QKV4 + (part * HEADS + head) * HEAD4 + at % HEAD4];
    }
}

@compute @workgroup_size(SIDE, SIDE)
fn attention(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_id) thread: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let head = workgroup.y;
    let first_query = workgroup.x * QUERIES;
    for (var at = index; at < QUERIES * HEAD4; at += SIDE * SIDE) {
        let row = min(first_query + at / HEAD4, frame.tokens - 1);
        queries[at] = qkv[row * QKV4 + head * HEAD4 + at % HEAD4];
    }
    var largest: array<f32, MOST_ROWS>;
    var total: array<f32, MOST_ROWS>; // over this invocation's keys
    var out: array<vec4<f32>, MOST_ROWS * MOST_PARTS>;
    for (var i = 0u; i < ROWS; i++) {
        largest[i] = MINUS_INFINITY;
    }
    for (var first_key = 0u; first_key < frame.tokens; first_key += KEYS) {
        load_block(1, head, first_key, index);
        workgroupBarrier();
        var score: array<f32, MOST_ROWS * MOST_KEYS>;
        for (var d = 0u; d < HEAD4; d++) {
            var query: array<vec4<f32>, MOST_ROWS>;
            for (var i = 0u; i < ROWS; i++) {
                query[i] = vec4<f32>(queries[(thread.y * ROWS + i) * HEAD4 + d]);
            }
            for (var k = 0u; k < KEYS / SIDE; k++) {
                let key = vec4<f32>(block[(thread.x + k * SIDE) * PITCH + d]);
                for (var i = 0u; i < ROWS; i++) {
                    score[i * MOST_KEYS + k] += dot(query[i], key);
                }
            }
        }
        for (var i = 0u; i < ROWS; i++) {
            var most = MINUS_INFINITY;
            for (var k = 0u; k < KEYS / SIDE; k++) {
                let inside = first_key + thread.x + k * SIDE < frame.tokens;
                let scaled = select(MINUS_INFINITY, score[i * MOST_KEYS + k] * SCALE, inside);
                score[i * MOST_KEYS + k] = scaled;
                most = max(most, scaled);
            }
            largest_of[(thread.y * ROWS + i) * SIDE + thread.x] = most;
        }
        workgroupBarrier();
        load_block(2, head, first_key, index);
        for (var i = 0u; i < ROWS; i++) {
            let query = thread.y * ROWS + i;
            var most = largest[i];
            for (var side = 0u; side < SIDE; side++) {
                most = max(most, largest_of[query * SIDE + side]);
            }
            let shrink = exp2(largest[i] - most);
            largest[i] = most;
            total[i] *= shrink;
            for (var k = 0u; k < KEYS / SIDE; k++) {
                let weight = exp2(score[i * MOST_KEYS + k] - most);
                total[i] += weight;
                weights[query * KEYS + thread.x + k * SIDE] = weight;
            }
            for (var part = 0u; part < MOST_PARTS; part++) {
                out[i * MOST_PARTS + part] *= shrink;
            }
        }
        workgroupBarrier();
        for (var key = 0u; key < KEYS; key++) {
            for (var part = 0u; part * SIDE < HEAD4; part++) {
                // Beyond the head's width it reads the next row, and nobody reads the result.
                let value = vec4<f32>(block[min(key * PITCH + thread.x + part * SIDE, KEYS * PITCH - 1)]);
                for (var i = 0u; i < ROWS; i++) {
                    out[i * MOST_PARTS + part] += weights[(thread.y * ROWS + i) * KEYS + key] * value;
                }
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < ROWS; i++) {
        largest_of[(thread.y * ROWS + i) * SIDE + thread.x] = total[i];
    }
    workgroupBarrier();
    for (var i = 0u; i < ROWS; i++) {
        let query = thread.y * ROWS + i;
        var sum = 0.0;
        for (var side = 0u; side < SIDE; side++) {
            sum += largest_of[query * SIDE + side];
        }
        if first_query + query < frame.tokens {
            for (var part = 0u; thread.x + part * SIDE < HEAD4; part++) {
                let col4 = head * HEAD4 + thread.x + part * SIDE;
                output[(first_query + query) * OUT4 + col4] = Real4(out[i * MOST_PARTS + part] / sum);
            }
        }
    }
}
