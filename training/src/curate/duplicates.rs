//! Groups of images that show the same: union-find over pairs of neighbours.

use super::{Neighbours, Sameness};

impl Sameness {
    /// Whether two images with this cosine and these hashes show the same.
    pub(super) fn holds(&self, cosine: f32, hashes: [u64; 2]) -> bool {
        let distance = (hashes[0] ^ hashes[1]).count_ones();
        cosine >= self.cosine || (cosine >= self.hashed_cosine && distance <= self.hash_distance)
    }
}

/// Disjoint sets (union-find).
pub(super) struct Components {
    /// A point's parent, which has a lower number; a root is its own.
    parents: Vec<u32>,
}

impl Components {
    pub(super) fn new(points: usize) -> Self {
        Self { parents: (0..points as u32).collect() }
    }

    /// The lowest number of a point's component.
    pub(super) fn root(&mut self, point: u32) -> u32 {
        let mut at = point;
        while self.parents[at as usize] != at {
            // Path halving.
            let grandparent = self.parents[self.parents[at as usize] as usize];
            self.parents[at as usize] = grandparent;
            at = grandparent;
        }
        at
    }

    pub(super) fn join(&mut self, left: u32, right: u32) {
        let (left, right) = (self.root(left), self.root(right));
        self.parents[left.max(right) as usize] = left.min(right);
    }
}

/// Joins each point with its neighbours that show the same according to `same(pair, cosine)`. Each pair is checked from both
/// sides, because neighbourhood is not symmetric.
pub(super) fn join_same(
    neighbours: &Neighbours,
    points: usize,
    same: impl Fn([u32; 2], f32) -> bool,
) -> Components {
    let mut components = Components::new(points);
    for point in 0..points {
        for neighbour in neighbours.of(point) {
            if same([point as u32, neighbour.row], neighbour.cosine) {
                components.join(point as u32, neighbour.row);
            }
        }
    }
    components
}
