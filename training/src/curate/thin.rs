use super::Points;
use super::points::dot;

/// Thins video: of frames in the order of their time, one is kept when its cosine to the last one that was kept falls below
/// `threshold`. `groups: [frames]` tells videos apart (a folder, say); what is no video has none and is always kept.
/// Returns for each frame that is left out, which one stands for it and the cosine to that.
pub(super) fn thin(
    points: &impl Points,
    groups: &[Option<usize>],
    threshold: f32,
) -> Vec<Option<(u32, f32)>> {
    let mut kept: Option<(usize, usize)> = None;
    let (mut last, mut frame) = (vec![0.0; points.dim()], vec![0.0; points.dim()]);
    let mut thinned = vec![None; groups.len()];
    for (index, &group) in groups.iter().enumerate() {
        let Some(group) = group else { continue };
        points.write(index, &mut frame);
        let before = kept.filter(|(of, _)| *of == group).map(|(_, at)| (at, dot(&last, &frame)));
        match before {
            Some((at, cosine)) if cosine >= threshold => thinned[index] = Some((at as u32, cosine)),
            _ => {
                kept = Some((group, index));
                std::mem::swap(&mut last, &mut frame);
            }
        }
    }
    thinned
}
