//! Thins videos: of consecutive frames that hardly differ, one stays.

use std::collections::HashMap;

use super::Points;
use super::points::dot;

/// Thins video: of frames in the order of their time, one is kept when its cosine to the last one that was kept falls below
/// `threshold`. `videos: [frames]`: the number of each frame's video.
/// Returns for each removed frame the kept frame that represents it, and their cosine.
pub(super) fn thin(points: &impl Points, videos: &[u32], threshold: f32) -> Vec<Option<(u32, f32)>> {
    let mut last_kept: HashMap<u32, u32> = HashMap::new();
    let (mut last, mut frame) = (vec![0.0; points.dim()], vec![0.0; points.dim()]);
    let mut thinned = vec![None; videos.len()];
    for (index, &video) in videos.iter().enumerate() {
        points.write(index, &mut frame);
        if let Some(&at) = last_kept.get(&video) {
            points.write(at as usize, &mut last);
            let cosine = dot(&last, &frame);
            if cosine >= threshold {
                thinned[index] = Some((at, cosine));
                continue;
            }
        }
        last_kept.insert(video, index as u32);
    }
    thinned
}
