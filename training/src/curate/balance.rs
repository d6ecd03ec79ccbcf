//! Balanced sampling from a hierarchy of clusters.

use super::Hierarchy;
use crate::random::{Purpose, Random};

/// Draws points so that clusters are balanced, from the coarsest level down: each cluster's share is divided evenly among its
/// children, and what a child is too small for goes to the others (Vo et al. 2024). Within the finest clusters points are
/// drawn at random. `usable: [points]`. Returns the drawn points in ascending order.
pub fn draw_balanced(hierarchy: &Hierarchy, usable: &[bool], count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(Purpose::Curation, seed, u64::MAX, 0);
    // children[t][cluster]: the points (t = 0) or clusters of the level below in it.
    let mut children = Vec::new();
    for (level, parents) in hierarchy.parents.iter().enumerate() {
        let mut of_level = vec![Vec::new(); hierarchy.clusters[level]];
        for (child, &parent) in parents.iter().enumerate() {
            if level > 0 || usable[child] {
                of_level[parent as usize].push(child as u32);
            }
        }
        children.push(of_level);
    }
    // sizes[t][cluster]: usable points below it.
    let mut sizes: Vec<Vec<usize>> = Vec::new();
    for (level, of_level) in children.iter().enumerate() {
        let size = |child: &u32| sizes[level - 1][*child as usize];
        let of_cluster = |children: &Vec<u32>| {
            if level == 0 { children.len() } else { children.iter().map(size).sum() }
        };
        sizes.push(of_level.iter().map(of_cluster).collect());
    }
    let Some(top) = sizes.last() else { return Vec::new() };
    let mut shares = fill(top, count, &mut random);
    for level in (1..children.len()).rev() {
        let mut below = vec![0; hierarchy.clusters[level - 1]];
        for (children, &share) in children[level].iter().zip(&shares) {
            let own: Vec<usize> = children.iter().map(|&child| sizes[level - 1][child as usize]).collect();
            for (&child, part) in children.iter().zip(fill(&own, share, &mut random)) {
                below[child as usize] = part;
            }
        }
        shares = below;
    }
    let mut drawn = Vec::new();
    for (points, &share) in children[0].iter_mut().zip(&shares) {
        random.shuffle(points);
        drawn.extend(&points[..share]);
    }
    drawn.sort_unstable();
    drawn
}

/// Divides `count` as evenly as sizes allow: each gets the same share or its whole size. The remainder, which is smaller than the
/// number of those with more, goes to randomly chosen ones of them.
fn fill(sizes: &[usize], count: usize, random: &mut Random) -> Vec<usize> {
    let given = |level: usize| sizes.iter().map(|&size| size.min(level)).sum::<usize>();
    let largest = sizes.iter().copied().max().unwrap_or(0);
    if given(largest) <= count {
        return sizes.to_vec();
    }
    // given(low) <= count < given(high)
    let (mut low, mut high) = (0, largest);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if given(middle) <= count { low = middle } else { high = middle }
    }
    let mut shares: Vec<usize> = sizes.iter().map(|&size| size.min(low)).collect();
    let mut rest: Vec<usize> = (0..sizes.len()).filter(|&index| sizes[index] > low).collect();
    random.shuffle(&mut rest);
    rest.iter().take(count - given(low)).for_each(|&index| shares[index] += 1);
    shares
}
