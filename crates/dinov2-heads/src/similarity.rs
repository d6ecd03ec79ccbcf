//! Cosine similarity of all patches to one feature, and the head `similarity`.

use dinov2_core::{Features, HeadOutputs, VitSpec};
use serde::Deserialize;
use serde_json::Value;

use crate::head::config_of;
use crate::{Head, HeadError, HeadInput, HeadKind};

pub(crate) const KIND: HeadKind = HeadKind {
    name: "similarity",
    summary: "map of the cosine similarity to the patch at x=0..1,y=0..1 of each camera's first frame",
    open,
};

/// Values summed side by side, which the compiler turns into SIMD.
const LANES: usize = 16;

/// A number of values that is not a multiple of the query's width.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("similarity: expected a multiple of the query's {dim} values (at least 1), got {got}")]
pub struct SimilarityError {
    /// Width of the query.
    pub dim: usize,
    /// Values given as patches.
    pub got: usize,
}

/// Writes the cosine similarity of each patch to one vector into `out: [n]`, replacing its content.
///
/// patches: `[n, dim]`. query: `[dim]`. The similarity is `dot(patch, query) / (|patch| * |query|)`, in -1..=1; 0 if
/// either vector is zero; NaN if a value is not finite.
///
/// # Errors
/// An empty query, or patches whose length is not a multiple of its width.
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
            // Two roots, because the product of two squared norms would overflow earlier.
            (dot / (squared.sqrt() * squared_query.sqrt())).clamp(-1.0, 1.0) as f32
        }
    }));
    Ok(())
}

/// `sum(patch^2)` and `sum(patch * query)`, in f64, which can hold the square of every finite f32.
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

/// A point of the image, 0..=1 from the top left.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
}

impl Point {
    /// True if both are in 0..=1.
    pub fn is_inside(self) -> bool {
        (0.0..=1.0).contains(&self.x) && (0.0..=1.0).contains(&self.y)
    }

    /// Row and column of the patch at this point; `None` for features without patches.
    pub fn patch(self, features: &Features) -> Option<(usize, usize)> {
        let grid = features.grid();
        let place = |part: f64, count: usize| ((part * count as f64) as usize).min(count.saturating_sub(1));
        (!grid.is_empty()).then(|| (place(self.y, grid.rows), place(self.x, grid.cols)))
    }
}

/// The reference of the comparison.
#[derive(Deserialize)]
#[serde(untagged)]
enum Query {
    /// The patch at this point of each camera's next frame.
    Point(Point),
    /// A feature `[dim]`.
    Feature(FeatureConfig),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureConfig {
    feature: Vec<f32>,
}

struct SimilarityHead {
    point: Option<Point>,
    /// By camera: empty until its first frame.
    queries: Vec<Vec<f32>>,
    /// One feature for all cameras, if configured.
    feature: Option<Vec<f32>>,
    dim: usize,
}

fn open(config: &Value, spec: &VitSpec) -> Result<Box<dyn Head>, HeadError> {
    let mut head = SimilarityHead { point: None, queries: Vec::new(), feature: None, dim: spec.dim };
    head.set(config)?;
    Ok(Box::new(head))
}

impl SimilarityHead {
    fn set(&mut self, config: &Value) -> Result<(), HeadError> {
        let wrong = |what: String| HeadError::config(KIND.name, what);
        let query = config_of::<Query>(KIND.name, config)
            .map_err(|_| wrong(format!("expected x and y in 0..=1, or feature, got {config}")))?;
        match query {
            Query::Point(point) if point.is_inside() => (self.point, self.feature) = (Some(point), None),
            Query::Point(Point { x, y }) => {
                return Err(wrong(format!("expected x and y in 0..=1, got {x} and {y}")));
            }
            Query::Feature(FeatureConfig { feature }) if feature.len() == self.dim => {
                self.feature = Some(feature)
            }
            Query::Feature(FeatureConfig { feature }) => {
                return Err(wrong(format!("feature: expected {} numbers, got {}", self.dim, feature.len())));
            }
        }
        self.queries.clear();
        Ok(())
    }
}

impl Head for SimilarityHead {
    /// `similarity`: map `[rows, cols]` of cosines, -1..=1.
    fn run(&mut self, input: HeadInput<'_>, out: &mut HeadOutputs) -> Result<(), HeadError> {
        let HeadInput { camera, features, .. } = input;
        if self.queries.len() <= camera {
            self.queries.resize(camera + 1, Vec::new());
        }
        let query = match (&self.feature, self.point) {
            (Some(feature), _) => feature,
            (None, point) => {
                let query = &mut self.queries[camera];
                if query.is_empty()
                    && let Some((row, col)) = point.and_then(|point| point.patch(features))
                {
                    query.extend_from_slice(features.patch(row, col));
                }
                query
            }
        };
        similarity_map(features.patches(), query, out.map(KIND.name, features.grid()))
            .map_err(|error| HeadError::features(KIND.name, error))
    }

    /// `{"x": X, "y": Y}` selects the patch at that point of the next frame of each camera; `{"feature": [..]}` sets a feature.
    fn command(&mut self, command: &Value) -> Result<(), HeadError> {
        self.set(command)
    }
}
