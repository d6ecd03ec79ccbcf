/// Values summed side by side, which the compiler turns into SIMD.
const LANES: usize = 16;

/// Features and a query that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("similarity: expected a multiple of the query's {dim} values (at least 1), got {got}")]
pub struct SimilarityError {
    /// Width of the query.
    pub dim: usize,
    /// Values given as patches.
    pub got: usize,
}

/// Writes how similar each patch is to one vector into `out: [n]`, replacing what was there.
///
/// patches: `[n, dim]`. query: `[dim]`. The similarity is the cosine of the angle between the two, in -1..=1:
/// `dot(patch, query) / (|patch| * |query|)`, and 0 where either is all zeros. What is not finite gives NaN.
///
/// # Errors
/// An empty query, or patches that do not fall into vectors of its width.
pub fn similarity_map(patches: &[f32], query: &[f32], out: &mut Vec<f32>) -> Result<(), SimilarityError> {
    let dim = query.len();
    if dim == 0 || !patches.len().is_multiple_of(dim) {
        return Err(SimilarityError { dim, got: patches.len() });
    }
    let (squared_query, _) = squares_and_dot(query, query);
    out.clear();
    out.extend(patches.chunks_exact(dim).map(|patch| {
        let (squared, dot) = squares_and_dot(patch, query);
        if squared == 0.0 || squared_query == 0.0 {
            0.0
        } else {
            // The roots one by one: the product of two squared lengths leaves the range sooner.
            (dot / (squared.sqrt() * squared_query.sqrt())).clamp(-1.0, 1.0) as f32
        }
    }));
    Ok(())
}

/// `sum(patch^2)` and `sum(patch * query)`. Products in f64 hold the square of every finite f32.
fn squares_and_dot(patch: &[f32], query: &[f32]) -> (f64, f64) {
    let (mut squares, mut dots) = ([0.0; LANES], [0.0; LANES]);
    let (patch_lanes, patch_rest) = patch.as_chunks::<LANES>();
    let (query_lanes, query_rest) = query.as_chunks::<LANES>();
    for (patch, query) in patch_lanes.iter().zip(query_lanes) {
        for lane in 0..LANES {
            let value = f64::from(patch[lane]);
            squares[lane] += value * value;
            dots[lane] += value * f64::from(query[lane]);
        }
    }
    for (lane, (patch, query)) in patch_rest.iter().zip(query_rest).enumerate() {
        let value = f64::from(*patch);
        squares[lane] += value * value;
        dots[lane] += value * f64::from(*query);
    }
    (squares.iter().sum(), dots.iter().sum())
}
