//! The measures of DAVIS (Perazzi et al., CVPR 2016): agreement of an object's mask with the true one.

/// Reach of the boundary measure, as a share of the image's diagonal.
const REACH: f64 = 0.008;

/// The mask of one object.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// `[height_px, width_px]`
    pub inside: &'a [bool],
    /// Width of the image.
    pub width_px: usize,
}

/// Region similarity J: intersection over union; 1 where neither mask has a pixel.
pub fn region_similarity(found: Mask<'_>, truth: Mask<'_>) -> f64 {
    let (mut both, mut either) = (0_usize, 0_usize);
    for (found, truth) in found.inside.iter().zip(truth.inside) {
        both += usize::from(*found && *truth);
        either += usize::from(*found || *truth);
    }
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}

/// Boundary measure F: harmonic mean of the shares of each boundary that lie within reach of the other; 1 where neither mask has
/// a boundary, 0 where only one has.
pub fn boundary_measure(found: Mask<'_>, truth: Mask<'_>) -> f64 {
    let (width, height) = (found.width_px, found.inside.len() / found.width_px);
    let reach = (REACH * ((width * width + height * height) as f64).sqrt()).ceil() as usize;
    let (found, truth) = (boundary(found), boundary(truth));
    let count = |pixels: &[bool]| pixels.iter().filter(|pixel| **pixel).count();
    let (found_count, truth_count) = (count(&found), count(&truth));
    if found_count == 0 || truth_count == 0 {
        return if found_count == truth_count { 1.0 } else { 0.0 };
    }
    let within = |pixels: &[bool], other: &[bool]| {
        let near = dilated(other, width, reach);
        pixels.iter().zip(near).filter(|(pixel, near)| **pixel && *near).count()
    };
    let precision = within(&found, &truth) as f64 / found_count as f64;
    let recall = within(&truth, &found) as f64 / truth_count as f64;
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

/// Pixels that differ from their neighbour to the right, below or both; beyond the image everything continues.
fn boundary(mask: Mask<'_>) -> Vec<bool> {
    let (width, inside) = (mask.width_px, mask.inside);
    let height = inside.len() / width;
    let at = |y: usize, x: usize| inside[y.min(height - 1) * width + x.min(width - 1)];
    let differs = |index: usize| {
        let (y, x) = (index / width, index % width);
        let own = inside[index];
        own != at(y, x + 1) || own != at(y + 1, x) || own != at(y + 1, x + 1)
    };
    (0..inside.len()).map(differs).collect()
}

/// Pixels within `reach` (a disk) of one that is set.
fn dilated(pixels: &[bool], width: usize, reach: usize) -> Vec<bool> {
    let height = pixels.len() / width;
    let half_widths: Vec<usize> = (0..=reach).map(|down| (reach * reach - down * down).isqrt()).collect();
    // Per row, where spans begin less where they end: their running sum is positive inside.
    let mut changes = vec![0_i32; (width + 1) * height];
    for (index, _) in pixels.iter().enumerate().filter(|(_, pixel)| **pixel) {
        let (y, x) = (index / width, index % width);
        for row in y.saturating_sub(reach)..(y + reach + 1).min(height) {
            let half = half_widths[row.abs_diff(y)];
            let line = &mut changes[row * (width + 1)..][..width + 1];
            line[x.saturating_sub(half)] += 1;
            line[(x + half + 1).min(width)] -= 1;
        }
    }
    let mut near = Vec::with_capacity(pixels.len());
    for line in changes.chunks_exact(width + 1) {
        let mut open = 0;
        near.extend(line[..width].iter().map(|change| {
            open += change;
            open > 0
        }));
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk; the same formula as in the script below.
    fn disk(centre: (i64, i64), radius: i64) -> Vec<bool> {
        let inside = |y: i64, x: i64| (y - centre.0).pow(2) + (x - centre.1).pow(2) <= radius * radius;
        (0..90 * 160).map(|index| inside(index / 160, index % 160)).collect()
    }

    fn evaluate(found: &[bool], truth: &[bool]) -> [f64; 2] {
        let mask = |inside| Mask { inside, width_px: 160 };
        [region_similarity(mask(found), mask(truth)), boundary_measure(mask(found), mask(truth))]
    }

    #[test]
    fn measures_as_the_reference_computes_them() {
        // training/tests/make_eval_fixtures.py davis: numpy and skimage after davis2017-evaluation.
        let nothing = vec![false; 90 * 160];
        let cases = [
            (disk((40, 60), 25), disk((40, 60), 25), [1.0, 1.0]),
            (disk((40, 60), 25), disk((41, 62), 25), [0.8928571428571429, 0.9068627450980392]),
            (disk((40, 60), 25), disk((44, 66), 22), [0.6514719848053181, 0.23848238482384826]),
            (disk((40, 60), 10), disk((44, 120), 22), [0.0, 0.0]),
            (disk((0, 0), 30), disk((3, 2), 30), [0.8251121076233184, 0.1775386684599866]),
            (disk((89, 159), 40), disk((85, 150), 45), [0.5746566238369517, 0.0]),
            (disk((45, 80), 200), disk((45, 80), 60), [0.6711111111111111, 0.0]),
            (nothing.clone(), nothing.clone(), [1.0, 1.0]),
            (disk((40, 60), 25), nothing.clone(), [0.0, 0.0]),
        ];
        for (case, (found, truth, expected)) in cases.iter().enumerate() {
            let got = evaluate(found, truth);
            let off = got.iter().zip(expected).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
            assert!(off < 1e-9, "case {case}: {got:?}, expected {expected:?}");
        }
    }
}
