// Attention of one head for 32 queries and up to 64 of the head's columns, with the online softmax of FlashAttention (Dao et
// al. 2022, algorithm 1): keys and values pass through workgroup memory in blocks of 16, no n x n matrix exists. 8 x 8
// invocations; each keeps four queries, for them two scores of a block and two vectors of the output, named so that they
// stay in registers. All sums are f32.
override HEADS: u32;
override HEAD4: u32; // width of a head, in vectors
override QKV4: u32; // row stride of the input, in vectors: queries, keys, values, each [HEADS, HEAD4]
override OUT4: u32; // row stride of the output, in vectors
override SCALE: f32; // head_dim^-1/2 * log2(e): scores are exponents of 2
override STAGED: u32; // 1: queries are held in workgroup memory
const SIDE = 8u;
const QUERIES = 32u;
const KEYS = 16u;
const PART = 16u; // vectors of the output in a workgroup
const MINUS_INFINITY = -3.0e38;
override PITCH: u32 = max(HEAD4, PART) + 1; // neighbouring keys in different banks

@group(0) @binding(1) var<storage, read> qkv: array<Real4>; // [rows, QKV4]
@group(0) @binding(2) var<storage, read_write> output: array<Real4>; // [rows, OUT4]
var<workgroup> queries: array<Real4, STAGED * QUERIES * HEAD4 + 1>; // [QUERIES, HEAD4]
var<workgroup> block: array<Real4, KEYS * PITCH>; // keys [KEYS, HEAD4], then values [KEYS, PART]
var<workgroup> weights: array<vec4<f32>, KEYS * SIDE>; // [KEYS, SIDE], four queries in a vector
var<workgroup> row_values: array<vec4<f32>, SIDE * SIDE>; // [SIDE rows, SIDE columns] of invocations: four queries each

// Of a token beyond the last, the last: its weight is 0.
fn at_token(token: u32) -> u32 {
    return min(token, frame.tokens - 1) * QKV4;
}

fn load_keys(head: u32, first_key: u32, index: u32) {
    for (var at = index; at < KEYS * HEAD4; at += SIDE * SIDE) {
        let key = at / HEAD4;
        block[key * PITCH + at % HEAD4] = qkv[at_token(first_key + key) + (HEADS + head) * HEAD4 + at % HEAD4];
    }
}

// Vectors `first` and on of the values; beyond the head's width zeros.
fn load_values(head: u32, first_key: u32, first: u32, index: u32) {
    for (var at = index; at < KEYS * PART; at += SIDE * SIDE) {
        let key = at / PART;
        let col = first + at % PART;
        var value = Real4();
        if col < HEAD4 {
            value = qkv[at_token(first_key + key) + (2 * HEADS + head) * HEAD4 + col];
        }
        block[key * PITCH + at % PART] = value;
    }
}

fn query4(head: u32, first_query: u32, query: u32, d: u32) -> vec4<f32> {
    if STAGED == 1 {
        return vec4<f32>(queries[query * HEAD4 + d]);
    }
    return vec4<f32>(qkv[at_token(first_query + query) + head * HEAD4 + d]);
}

fn write(query: u32, head: u32, col: u32, value: vec4<f32>) {
    if query < frame.tokens && col < HEAD4 {
        output[query * OUT4 + head * HEAD4 + col] = Real4(value);
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
    let first_col = workgroup.z * PART;
    for (var at = index; at < STAGED * QUERIES * HEAD4; at += SIDE * SIDE) {
        queries[at] = qkv[at_token(first_query + at / HEAD4) + head * HEAD4 + at % HEAD4];
    }
    let query = 4 * thread.y;
    // One lane per query of this invocation.
    var largest = vec4(MINUS_INFINITY);
    var total = vec4<f32>(); // over this invocation's keys
    // Output of queries 0 to 3, columns a and b.
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    var b0 = vec4<f32>();
    var b1 = vec4<f32>();
    var b2 = vec4<f32>();
    var b3 = vec4<f32>();
    for (var first_key = 0u; first_key < frame.tokens; first_key += KEYS) {
        load_keys(head, first_key, index);
        workgroupBarrier();
        var near = vec4<f32>(); // scores of key thread.x
        var far = vec4<f32>(); // and of key thread.x + SIDE
        for (var d = 0u; d < HEAD4; d++) {
            let q0 = query4(head, first_query, query, d);
            let q1 = query4(head, first_query, query + 1, d);
            let q2 = query4(head, first_query, query + 2, d);
            let q3 = query4(head, first_query, query + 3, d);
            let key = vec4<f32>(block[thread.x * PITCH + d]);
            near += vec4(dot(q0, key), dot(q1, key), dot(q2, key), dot(q3, key));
            let other = vec4<f32>(block[(thread.x + SIDE) * PITCH + d]);
            far += vec4(dot(q0, other), dot(q1, other), dot(q2, other), dot(q3, other));
        }
        near = select(vec4(MINUS_INFINITY), near * SCALE, first_key + thread.x < frame.tokens);
        far = select(vec4(MINUS_INFINITY), far * SCALE, first_key + thread.x + SIDE < frame.tokens);
        row_values[index] = max(near, far);
        workgroupBarrier();
        load_values(head, first_key, first_col, index);
        var most = largest;
        for (var side = 0u; side < SIDE; side++) {
            most = max(most, row_values[thread.y * SIDE + side]);
        }
        let shrink = exp2(largest - most);
        largest = most;
        near = exp2(near - most);
        far = exp2(far - most);
        total = total * shrink + near + far;
        weights[thread.x * SIDE + thread.y] = near;
        weights[(thread.x + SIDE) * SIDE + thread.y] = far;
        a0 *= shrink.x;
        a1 *= shrink.y;
        a2 *= shrink.z;
        a3 *= shrink.w;
        b0 *= shrink.x;
        b1 *= shrink.y;
        b2 *= shrink.z;
        b3 *= shrink.w;
        workgroupBarrier();
        for (var key = 0u; key < KEYS; key++) {
            let weight = weights[key * SIDE + thread.y];
            let value_a = vec4<f32>(block[key * PITCH + thread.x]);
            a0 = fma(vec4(weight.x), value_a, a0);
            a1 = fma(vec4(weight.y), value_a, a1);
            a2 = fma(vec4(weight.z), value_a, a2);
            a3 = fma(vec4(weight.w), value_a, a3);
            let value_b = vec4<f32>(block[key * PITCH + thread.x + SIDE]);
            b0 = fma(vec4(weight.x), value_b, b0);
            b1 = fma(vec4(weight.y), value_b, b1);
            b2 = fma(vec4(weight.z), value_b, b2);
            b3 = fma(vec4(weight.w), value_b, b3);
        }
        workgroupBarrier();
    }
    row_values[index] = total;
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var side = 0u; side < SIDE; side++) {
        sum += row_values[thread.y * SIDE + side];
    }
    let share = 1.0 / sum;
    let token = first_query + query;
    let col_a = first_col + thread.x;
    let col_b = col_a + SIDE;
    write(token, head, col_a, a0 * share.x);
    write(token + 1, head, col_a, a1 * share.y);
    write(token + 2, head, col_a, a2 * share.z);
    write(token + 3, head, col_a, a3 * share.w);
    write(token, head, col_b, b0 * share.x);
    write(token + 1, head, col_b, b1 * share.y);
    write(token + 2, head, col_b, b2 * share.z);
    write(token + 3, head, col_b, b3 * share.w);
}
