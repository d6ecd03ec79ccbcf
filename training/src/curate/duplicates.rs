use super::{Neighbours, Sameness};

impl Sameness {
    /// Whether two pictures with this cosine and these hashes show the same.
    pub(super) fn holds(&self, cosine: f32, hashes: [u64; 2]) -> bool {
        let distance = (hashes[0] ^ hashes[1]).count_ones();
        cosine >= self.cosine || (cosine >= self.hashed_cosine && distance <= self.hash_distance)
    }
}

/// Sets that are joined step by step.
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
            // Halves the way for whoever comes next.
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

/// Joins points with those of their neighbours that show the same, as `same(pair, cosine)` tells. Each pair is looked at from both
/// sides, because one may be among the other's neighbours and not the other way round.
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
