//! Hierarchical k-means with resampling. Clusters of clusters, the finest level first.

use super::kmeans::{assign, kmeans};
use super::{Clustering, Floats, Points, Subset};

/// Settings of a hierarchy.
#[derive(Clone, Debug, PartialEq)]
pub struct HierarchyOptions {
    /// Clusters of each level, the finest first, each fewer than the one before.
    pub levels: Vec<usize>,
    /// Iterations of each k-means at most.
    pub iterations: usize,
    /// Rounds of resampling per level; 0 is plain k-means.
    pub resampling: usize,
    /// Seed of all random numbers.
    pub seed: u64,
}

/// Clusters of clusters.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// `parents[0]`: the finest cluster of each point; `parents[t]`: the cluster of level `t` of each cluster of level `t - 1`.
    pub parents: Vec<Vec<u32>>,
    /// Clusters of each level, the finest first.
    pub clusters: Vec<usize>,
}

impl Hierarchy {
    /// Hierarchical k-means with resampling (Vo et al. 2024, arXiv 2405.15613).
    ///
    /// k-means alone places most centroids where points are dense. So after each run the points nearest to their centroid are
    /// taken, equally many from each cluster, and clustered again: among them dense regions weigh no more than others, and centroids
    /// spread over the whole set. The next level does the same with the centroids as its points.
    ///
    /// # Panics
    /// If there are no points or no levels.
    pub fn build(points: &impl Points, options: &HierarchyOptions, step: &mut dyn FnMut(f64)) -> Self {
        assert!(!options.levels.is_empty(), "hierarchy: expected a level");
        let mut built = Self { parents: Vec::new(), clusters: Vec::new() };
        let mut centroids: Vec<f32> = Vec::new();
        let mut report = |level: usize, done: f64| step((level as f64 + done) / options.levels.len() as f64);
        for (level, &clusters) in options.levels.iter().enumerate() {
            let seed = options.seed.wrapping_add(level as u64 * 1_000);
            let step = &mut |done| report(level, done);
            let clustering = if level == 0 {
                resampled(points, clusters, options, seed, step)
            } else {
                resampled(&Floats { numbers: &centroids, dim: points.dim() }, clusters, options, seed, step)
            };
            built.clusters.push(clustering.centroids.len() / points.dim());
            built.parents.push(clustering.assignment);
            centroids = clustering.centroids;
        }
        built
    }

    /// A point's clusters, the coarsest first.
    pub fn path(&self, point: usize) -> Vec<u32> {
        let mut at = point;
        let climb = |parents: &Vec<u32>| {
            at = parents[at] as usize;
            at as u32
        };
        let mut path: Vec<u32> = self.parents.iter().map(climb).collect();
        path.reverse();
        path
    }
}

/// One level.
fn resampled(
    points: &impl Points,
    clusters: usize,
    options: &HierarchyOptions,
    seed: u64,
    step: &mut dyn FnMut(f64),
) -> Clustering {
    let mut clustering = kmeans(points, clusters, options.iterations, seed);
    for round in 1..=options.resampling {
        step(round as f64 / (options.resampling + 1) as f64);
        let clusters = clustering.centroids.len() / points.dim();
        // Half of the mean cluster size: enough to move centroids, few enough to flatten dense regions.
        let each = (points.len() / (2 * clusters)).max(1);
        let sample = nearest_of_each(&clustering, clusters, each);
        let again = kmeans(
            &Subset { points, members: &sample },
            clusters,
            options.iterations,
            seed.wrapping_add(round as u64),
        );
        let (assignment, distances) = assign(points, &again.centroids);
        clustering = Clustering { centroids: again.centroids, assignment, distances };
    }
    step(1.0);
    clustering
}

/// Of each cluster, the `each` points that are nearest to its centroid.
fn nearest_of_each(clustering: &Clustering, clusters: usize, each: usize) -> Vec<u32> {
    let mut sample = Vec::new();
    for mut members in clustering.members(clusters) {
        let distance = |point: &u32| clustering.distances[*point as usize];
        members.sort_by(|left, right| distance(left).total_cmp(&distance(right)));
        members.truncate(each);
        sample.extend(members);
    }
    sample.sort_unstable();
    sample
}
