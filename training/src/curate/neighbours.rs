//! Exact nearest neighbours by cosine: all products, block by block, with the engine's matrix kernel. Memory beyond the
//! points: `rows * most * 8` bytes, and some ten MB per thread.

use std::cmp::Ordering;

use dinov2_kernels::gemm_f32::PackedLinear;
use dinov2_kernels::{Epilogue, Isa, Pool};
use rayon::prelude::*;

use super::Points;

/// Points packed as a matrix at a time: 6 MB for a ViT-S.
const COLUMNS: usize = 4_096;
/// Points that are multiplied with them at a time: 4 MB of products.
const ROWS: usize = 256;
/// Least blocks of rows per task: the results of its columns are merged once per task.
const LEAST_TASKS: usize = 16;
/// Products that are tested at a time before each is looked at.
const GLANCE: usize = 16;

/// A point that is near another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its row.
    pub row: u32,
    /// Cosine of the angle between both, where points are unit vectors.
    pub cosine: f32,
}

impl Neighbour {
    const NONE: Self = Self { row: u32::MAX, cosine: f32::NEG_INFINITY };

    /// Whether it comes before the other: by cosine, then by row, so that the result does not depend on the order of work.
    fn is_before(self, other: Self) -> bool {
        self.cosine > other.cosine || (self.cosine == other.cosine && self.row < other.row)
    }

    fn order(&self, other: &Self) -> Ordering {
        other.cosine.total_cmp(&self.cosine).then(self.row.cmp(&other.row))
    }
}

/// The nearest neighbours of each point of a set, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    most: usize,
    /// `[points, most]`
    found: Vec<Neighbour>,
}

impl Neighbours {
    /// Of a point; fewer than asked for where there were no more.
    pub fn of(&self, point: usize) -> &[Neighbour] {
        let row = &self.found[point * self.most..][..self.most];
        &row[..row.iter().position(|found| found.row == u32::MAX).unwrap_or(self.most)]
    }

    /// Points whose neighbours these are.
    pub fn len(&self) -> usize {
        self.found.len() / self.most
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    fn none(points: usize, most: usize) -> Self {
        Self { most, found: vec![Neighbour::NONE; points * most] }
    }

    fn sorted(mut self) -> Self {
        self.found.par_chunks_mut(self.most).for_each(|row| row.sort_unstable_by(Neighbour::order));
        self
    }
}

/// The `most` nearest of all other points, for each point. `step(done)` hears of the progress, from 0 to 1.
///
/// Each pair is multiplied once and counts for both.
///
/// # Panics
/// If `most` is zero.
pub fn neighbours_within(points: &impl Points, most: usize, step: &mut dyn FnMut(f64)) -> Neighbours {
    let mut neighbours = Neighbours::none(points.len(), most);
    for start in (0..points.len()).step_by(COLUMNS) {
        let block = Block::pack(points, start);
        let later = &mut neighbours.found[start * most..];
        let of_columns = later
            .par_chunks_mut(ROWS * most)
            .enumerate()
            .with_min_len(LEAST_TASKS)
            .fold(
                || (Work::default(), Columns::none(block.columns, most)),
                |(mut work, mut columns), (index, heaps)| {
                    let first = start + index * ROWS;
                    let products = block.multiply(points, first, heaps.len() / most, &mut work);
                    let rows = heaps.chunks_exact_mut(most).zip(products.chunks_exact(block.columns));
                    for (row, (heap, products)) in rows.enumerate() {
                        offer_row(heap, products, start, Some(first + row));
                    }
                    // Rows of the block itself are compared from both sides already.
                    if first >= start + block.columns {
                        columns.offer(products, first);
                    }
                    (work, columns)
                },
            )
            .map(|(_, columns)| columns)
            .reduce_with(|left, right| left.merged(&right.heaps));
        if let Some(columns) = of_columns {
            let own = &mut neighbours.found[start * most..][..block.columns * most];
            own.copy_from_slice(&columns.merged(own).heaps);
        }
        let left = 1.0 - (start + block.columns) as f64 / points.len() as f64;
        step(1.0 - left * left);
    }
    neighbours.sorted()
}

/// The `most` nearest points of `pool`, for each of `queries`.
///
/// # Panics
/// If `most` is zero, or dimensions differ.
pub fn neighbours_between(queries: &impl Points, pool: &impl Points, most: usize) -> Neighbours {
    assert_eq!(queries.dim(), pool.dim(), "neighbours: expected one dimension");
    let mut neighbours = Neighbours::none(queries.len(), most);
    for start in (0..pool.len()).step_by(COLUMNS) {
        let block = Block::pack(pool, start);
        neighbours.found.par_chunks_mut(ROWS * most).enumerate().for_each_init(
            Work::default,
            |work, (index, heaps)| {
                let products = block.multiply(queries, index * ROWS, heaps.len() / most, work);
                for (heap, products) in heaps.chunks_exact_mut(most).zip(products.chunks_exact(block.columns))
                {
                    offer_row(heap, products, start, None);
                }
            },
        );
    }
    neighbours.sorted()
}

/// Points packed as the matrix that others are multiplied with.
struct Block {
    isa: Isa,
    packed: PackedLinear,
    columns: usize,
}

/// A thread's buffers.
#[derive(Default)]
struct Work {
    /// `[rows, dim]`
    rows: Vec<f32>,
    /// `[rows, columns]`
    products: Vec<f32>,
}

impl Block {
    fn pack(points: &impl Points, start: usize) -> Self {
        let columns = COLUMNS.min(points.len() - start);
        let mut numbers = Vec::new();
        points.write_range(start..start + columns, &mut numbers);
        let isa = Isa::detect();
        let packed = PackedLinear::pack(isa, &numbers, &vec![0.0; columns], points.dim());
        Self { isa, packed, columns }
    }

    /// Products `[count, columns]` of the points from `first` on.
    fn multiply<'a>(
        &self,
        points: &impl Points,
        first: usize,
        count: usize,
        work: &'a mut Work,
    ) -> &'a [f32] {
        points.write_range(first..first + count, &mut work.rows);
        work.products.resize(count * self.columns, 0.0);
        self.packed.apply(self.isa, &Pool::single(), Epilogue::Store, &work.rows, &mut work.products);
        &work.products
    }
}

/// Offers products `[columns]`, whose points begin at row `start`, to the heap of one point, which is not its own neighbour.
fn offer_row(heap: &mut [Neighbour], products: &[f32], start: usize, own: Option<usize>) {
    for (glance, products) in products.chunks(GLANCE).enumerate() {
        if !products.iter().any(|&product| product >= heap[0].cosine) {
            continue;
        }
        for (offset, &cosine) in products.iter().enumerate() {
            let row = start + glance * GLANCE + offset;
            if Some(row) != own {
                offer(heap, Neighbour { row: row as u32, cosine });
            }
        }
    }
}

/// What a block's own points have found among later ones.
struct Columns {
    most: usize,
    /// `[columns, most]`
    heaps: Vec<Neighbour>,
    /// The cosine at the root of each heap: `[columns]`.
    least: Vec<f32>,
}

impl Columns {
    fn none(columns: usize, most: usize) -> Self {
        Self { most, heaps: vec![Neighbour::NONE; columns * most], least: vec![f32::NEG_INFINITY; columns] }
    }

    /// products: `[rows, columns]`, whose rows begin at `first`.
    fn offer(&mut self, products: &[f32], first: usize) {
        for (row, products) in products.chunks_exact(self.least.len()).enumerate() {
            let glances = products.chunks(GLANCE).zip(self.least.chunks_mut(GLANCE));
            for (glance, (products, least)) in glances.enumerate() {
                if !products.iter().zip(&*least).any(|(product, least)| product >= least) {
                    continue;
                }
                for (offset, (&cosine, least)) in products.iter().zip(least).enumerate() {
                    let heap = &mut self.heaps[(glance * GLANCE + offset) * self.most..][..self.most];
                    offer(heap, Neighbour { row: (first + row) as u32, cosine });
                    *least = heap[0].cosine;
                }
            }
        }
    }

    /// With the finds of others: `[columns, most]`.
    fn merged(mut self, others: &[Neighbour]) -> Self {
        for (heap, others) in self.heaps.chunks_exact_mut(self.most).zip(others.chunks_exact(self.most)) {
            others.iter().filter(|other| other.row != u32::MAX).for_each(|&other| offer(heap, other));
        }
        self
    }
}

/// Keeps the best in a binary heap with the last of them at the root.
fn offer(heap: &mut [Neighbour], candidate: Neighbour) {
    if !candidate.is_before(heap[0]) {
        return;
    }
    let mut hole = 0;
    loop {
        let (left, right) = (2 * hole + 1, 2 * hole + 2);
        let Some(&first) = heap.get(left) else { break };
        let (child, later) = match heap.get(right) {
            Some(&second) if first.is_before(second) => (right, second),
            _ => (left, first),
        };
        if !candidate.is_before(later) {
            break;
        }
        heap[hole] = later;
        hole = child;
    }
    heap[hole] = candidate;
}
