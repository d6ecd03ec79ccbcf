// Sizes that differ from grid to grid; all other sizes are overrides. Its layout is that of `Frame` in frame.rs.
struct Frame {
    tokens: u32,
    patches: u32,
    grid_cols: u32,
    // Bytes of a line of pixels.
    line_bytes: u32,
}
@group(0) @binding(0) var<uniform> frame: Frame;
