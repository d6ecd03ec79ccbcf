// One row of a matrix per workgroup, of LANES invocations.
const LANES = 64u;
var<workgroup> partial: array<vec2<f32>, LANES>;

// The workgroup's row; beyond the last for workgroups that fill the grid up.
fn row_of(workgroup: vec3<u32>, workgroups: vec3<u32>) -> u32 {
    return workgroup.y * workgroups.x + workgroup.x;
}

// Sum over the workgroup, the same bits in every invocation.
fn sum_of_row(lane: u32, value: f32) -> f32 {
    partial[lane].x = value;
    workgroupBarrier();
    var sum = 0.0;
    for (var at = 0u; at < LANES; at++) {
        sum += partial[at].x;
    }
    workgroupBarrier();
    return sum;
}

// Least and largest over the workgroup.
fn range_of_row(lane: u32, low: f32, high: f32) -> vec2<f32> {
    partial[lane] = vec2(low, high);
    workgroupBarrier();
    var range = partial[0];
    for (var at = 1u; at < LANES; at++) {
        range = vec2(min(range.x, partial[at].x), max(range.y, partial[at].y));
    }
    workgroupBarrier();
    return range;
}
