//! Weighted nearest neighbours: DINO's protocol (arXiv 2104.14294, section 4.1), which tests whether features of one class
//! are close, without training.

use nalgebra::DMatrixView;
use rayon::prelude::*;

/// Queries and bank entries that are compared at once: 4 MiB of cosines.
const BLOCK_QUERIES: usize = 256;
const BLOCK_ENTRIES: usize = 4_096;
/// A neighbour votes with `exp(cosine / 0.07)`.
const TEMPERATURE: f32 = 0.07;

/// Vectors of unit length with their classes.
#[derive(Clone, Debug)]
pub struct Bank {
    dim: usize,
    /// `[n, dim]`
    directions: Vec<f32>,
    /// `[n]`
    classes: Vec<u32>,
}

/// An entry of the bank and its cosine to the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Cosine to the query.
    pub cosine: f32,
    /// Index of the entry.
    pub entry: usize,
}

impl Bank {
    /// A bank of `features: [n, dim]` with `classes: [n]`.
    ///
    /// # Panics
    /// If there is not one class per feature.
    pub fn new(features: &[f32], dim: usize, classes: Vec<u32>) -> Self {
        assert_eq!(features.len(), classes.len() * dim, "a class for every feature");
        Self { dim, directions: directions(features, dim), classes }
    }

    /// Class of an entry.
    pub fn class(&self, entry: usize) -> u32 {
        self.classes[entry]
    }

    /// The `most` nearest entries of each of `queries: [m, dim]`, nearest first; of equal ones the earlier. `excluded`: the
    /// entry that a query must not find (itself).
    pub fn nearest(
        &self,
        queries: &[f32],
        most: usize,
        excluded: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Vec<Vec<Neighbour>> {
        let queries = directions(queries, self.dim);
        let blocks = queries.par_chunks(BLOCK_QUERIES * self.dim).enumerate();
        let found = blocks.flat_map_iter(|(block, queries)| {
            let first = block * BLOCK_QUERIES;
            let mut found = vec![Vec::with_capacity(most + 1); queries.len() / self.dim];
            self.search(queries, most, |query| excluded(first + query), &mut found);
            found
        });
        found.collect()
    }

    fn search(
        &self,
        queries: &[f32],
        most: usize,
        excluded: impl Fn(usize) -> Option<usize>,
        found: &mut [Vec<Neighbour>],
    ) {
        let count = found.len();
        let queries = DMatrixView::from_slice(queries, self.dim, count).transpose();
        let excluded: Vec<Option<usize>> = (0..count).map(excluded).collect();
        for (block, entries) in self.directions.chunks(BLOCK_ENTRIES * self.dim).enumerate() {
            let entries = DMatrixView::from_slice(entries, self.dim, entries.len() / self.dim);
            let cosines = &queries * entries;
            for (row, cosines) in cosines.column_iter().enumerate() {
                let entry = block * BLOCK_ENTRIES + row;
                for ((found, excluded), &cosine) in found.iter_mut().zip(&excluded).zip(cosines.iter()) {
                    let worst = found.last().map_or(f32::NEG_INFINITY, |last| last.cosine);
                    let hopeless = cosine.is_nan() || (found.len() == most && cosine <= worst);
                    if hopeless || *excluded == Some(entry) {
                        continue;
                    }
                    let place = found.partition_point(|other| other.cosine >= cosine);
                    found.insert(place, Neighbour { cosine, entry });
                    found.truncate(most);
                }
            }
        }
    }

    /// The class with the most votes of the nearest `k` neighbours; of equal votes the smaller. `None` without neighbours.
    pub fn vote(&self, neighbours: &[Neighbour], k: usize) -> Option<u32> {
        let mut votes: Vec<(u32, f64)> = Vec::new();
        for neighbour in neighbours.iter().take(k) {
            let (class, weight) =
                (self.class(neighbour.entry), f64::from(neighbour.cosine / TEMPERATURE).exp());
            match votes.iter_mut().find(|(voted, _)| *voted == class) {
                Some((_, sum)) => *sum += weight,
                None => votes.push((class, weight)),
            }
        }
        votes.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
        votes.first().map(|(class, _)| *class)
    }

    /// Share of queries whose class the vote of `k` neighbours finds; NaN without queries.
    ///
    /// # Panics
    /// If there is not one class per query.
    pub fn accuracy(&self, found: &[Vec<Neighbour>], classes: &[u32], k: usize) -> f64 {
        assert_eq!(found.len(), classes.len(), "a class for every query");
        let right =
            found.iter().zip(classes).filter(|(found, class)| self.vote(found, k) == Some(**class)).count();
        right as f64 / classes.len() as f64
    }
}

/// Vectors of unit length; zeros stay zeros.
fn directions(features: &[f32], dim: usize) -> Vec<f32> {
    let mut directions = features.to_vec();
    for feature in directions.chunks_exact_mut(dim) {
        let squared: f64 = feature.iter().map(|value| f64::from(*value).powi(2)).sum();
        if squared > 0.0 {
            let inverse = squared.sqrt().recip() as f32;
            feature.iter_mut().for_each(|value| *value *= inverse);
        }
    }
    directions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[count, 6]`; the same formula as in the script below.
    fn features(count: usize, shift: usize) -> Vec<f32> {
        let value = |row: usize, column: usize| (row * 31 + column * 17 + shift + row * column * 7) % 29;
        (0..count * 6).map(|index| value(index / 6, index % 6) as f32 - 14.0).collect()
    }

    fn bank() -> Bank {
        Bank::new(&features(40, 0), 6, (0..40).map(|index| (index * index + index / 3) % 4).collect())
    }

    #[test]
    fn votes_as_dino_counts_them() {
        // training/tests/make_eval_fixtures.py knn: k, votes for the queries, votes for the bank's own.
        let cases = [
            (
                1,
                [1, 2, 2, 3, 2, 0, 3, 2, 0, 1, 3, 0, 2, 2, 0, 3, 2, 0, 3, 0, 2, 1, 0, 2, 1],
                [
                    2, 2, 3, 2, 0, 3, 0, 0, 1, 0, 2, 2, 2, 2, 3, 1, 2, 1, 0, 1, 3, 1, 0, 0, 1, 0, 3, 0, 0, 0,
                    1, 0, 2, 1, 2, 2, 3, 2, 0, 3,
                ],
            ),
            (
                5,
                [1, 2, 2, 0, 1, 0, 2, 0, 0, 1, 2, 0, 2, 2, 0, 3, 2, 0, 3, 0, 2, 1, 0, 2, 1],
                [
                    2, 2, 3, 2, 0, 3, 0, 0, 1, 0, 2, 2, 1, 2, 2, 1, 2, 2, 0, 1, 2, 1, 0, 0, 1, 0, 3, 0, 0, 0,
                    1, 0, 2, 1, 2, 2, 3, 2, 0, 3,
                ],
            ),
            (
                20,
                [1, 2, 2, 0, 2, 0, 2, 0, 0, 1, 2, 0, 2, 2, 0, 3, 2, 0, 3, 0, 2, 1, 0, 2, 1],
                [
                    2, 2, 3, 2, 0, 3, 0, 0, 1, 0, 2, 2, 1, 2, 2, 1, 2, 2, 0, 1, 2, 1, 0, 0, 1, 0, 3, 0, 0, 0,
                    1, 0, 2, 1, 2, 2, 3, 2, 0, 3,
                ],
            ),
        ];
        let bank = bank();
        for (k, apart, own) in cases {
            let votes = |found: Vec<Vec<Neighbour>>| -> Vec<u32> {
                found.iter().map(|found| bank.vote(found, k).unwrap()).collect()
            };
            assert_eq!(votes(bank.nearest(&features(25, 5), 20, |_| None)), apart, "k = {k}");
            assert_eq!(votes(bank.nearest(&features(40, 0), 20, Some)), own, "k = {k}, own");
        }
    }

    #[test]
    fn nothing_is_lost_between_blocks() {
        // More queries and entries than a block holds; every entry is its own nearest neighbour.
        let count = BLOCK_ENTRIES + 300;
        let angle = |index: usize| (index as f32 * 0.001).sin_cos();
        let features: Vec<f32> = (0..count).flat_map(|index| [angle(index).0, angle(index).1]).collect();
        let bank = Bank::new(&features, 2, (0..count as u32).collect());
        let found = bank.nearest(&features, 2, |_| None);
        assert_eq!(found.len(), count);
        for (index, found) in found.iter().enumerate() {
            assert!(found.iter().any(|neighbour| neighbour.entry == index), "{index}: {found:?}");
            assert!(found.iter().all(|neighbour| neighbour.entry.abs_diff(index) <= 4), "{index}: {found:?}");
        }
        let classes: Vec<u32> = (0..count as u32).collect();
        assert!(bank.accuracy(&bank.nearest(&features, 1, Some), &classes, 1) == 0.0, "none finds itself");
    }

    #[test]
    fn nobody_votes_where_nothing_is_near() {
        let bank = Bank::new(&[1.0, 0.0], 2, vec![3]);
        assert_eq!(bank.vote(&bank.nearest(&[2.0, 0.0], 5, |_| None)[0], 5), Some(3));
        assert_eq!(bank.vote(&bank.nearest(&[2.0, 0.0], 5, Some)[0], 5), None);
        assert_eq!(bank.vote(&bank.nearest(&[f32::NAN, 0.0], 5, |_| None)[0], 5), None);
    }
}
