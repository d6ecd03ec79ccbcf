//! Limited-memory BFGS for smooth convex functions (Nocedal & Wright, Numerical Optimization, algorithms 7.4 and 7.5).

/// Number of stored pairs of steps and gradient changes, as in scipy and scikit-learn.
const MEMORY: usize = 10;
/// Required fraction of the decrease that the slope predicts (Armijo's condition).
const SUFFICIENT_DECREASE: f64 = 1e-4;
/// Maximum number of halvings of a step; beyond it the decrease is below the rounding error of the function.
const MAX_HALVINGS: usize = 20;

/// Stopping criteria.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of steps.
    pub(crate) steps: usize,
    /// The search ends when no entry of the gradient is larger.
    pub(crate) gradient: f64,
}

/// The result of the search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Minimum {
    pub(crate) value: f64,
    pub(crate) steps: usize,
    /// Largest entry of the gradient, in magnitude.
    pub(crate) gradient: f64,
}

/// A step and the change of the gradient along it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// `1 / (step · change)`
    curvature: f64,
}

/// Moves `point` to the minimum of `function`, which writes its gradient and returns its value. `progress` is called after every step
/// with its number and the value.
pub(crate) fn minimise(
    point: &mut Vec<f64>,
    limits: Limits,
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
    mut progress: impl FnMut(usize, f64),
) -> Minimum {
    let mut gradient = vec![0.0; point.len()];
    let mut value = function(point, &mut gradient);
    let mut pairs: Vec<Pair> = Vec::with_capacity(MEMORY);
    let mut steps = 0;
    let (mut next, mut next_gradient) = (point.clone(), gradient.clone());
    while steps < limits.steps && largest(&gradient) > limits.gradient {
        let direction = direction(&pairs, &gradient);
        let slope = dot(&direction, &gradient);
        let mut length = if pairs.is_empty() { 1.0 / norm(&gradient).max(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..MAX_HALVINGS {
            for ((next, &start), &along) in next.iter_mut().zip(point.iter()).zip(&direction) {
                *next = start + length * along;
            }
            let reached = function(&next, &mut next_gradient);
            if reached <= value + SUFFICIENT_DECREASE * length * slope {
                found = Some(reached);
                break;
            }
            length /= 2.0;
        }
        let Some(reached) = found else { break };
        remember(&mut pairs, difference(&next, point), difference(&next_gradient, &gradient));
        std::mem::swap(point, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value = reached;
        steps += 1;
        progress(steps, value);
    }
    Minimum { value, steps, gradient: largest(&gradient) }
}

/// The search direction: minus the gradient times the inverse Hessian estimated from the pairs (two-loop recursion).
fn direction(pairs: &[Pair], gradient: &[f64]) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|value| -value).collect();
    let mut shares = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let share = pair.curvature * dot(&pair.step, &direction);
        add(&mut direction, -share, &pair.change);
        shares.push(share);
    }
    if let Some(last) = pairs.last() {
        let scale = 1.0 / (last.curvature * dot(&last.change, &last.change));
        direction.iter_mut().for_each(|value| *value *= scale);
    }
    for (pair, share) in pairs.iter().zip(shares.iter().rev()) {
        let back = pair.curvature * dot(&pair.change, &direction);
        add(&mut direction, share - back, &pair.step);
    }
    direction
}

/// Stores the pair if its curvature is positive. For a convex function only rounding can violate that.
fn remember(pairs: &mut Vec<Pair>, step: Vec<f64>, change: Vec<f64>) {
    let product = dot(&step, &change);
    if product <= f64::EPSILON * dot(&change, &change) {
        return;
    }
    if pairs.len() == MEMORY {
        pairs.remove(0);
    }
    pairs.push(Pair { step, change, curvature: 1.0 / product });
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn norm(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| f64::max(largest, value.abs()))
}

fn add(values: &mut [f64], factor: f64, added: &[f64]) {
    values.iter_mut().zip(added).for_each(|(value, added)| *value += factor * added);
}

fn difference(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left - right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ill_conditioned_quadratic_is_solved() {
        // sum(c (x - m)^2 / 2): minimum 0 at m, curvatures 1 to 1000. scipy's L-BFGS-B takes 274 steps.
        let (size, mut told) = (30, 0);
        let curvature = |index: usize| 1000f64.powf(index as f64 / (size - 1) as f64);
        let mut point = vec![0.0; size];
        let function = |point: &[f64], gradient: &mut [f64]| {
            let mut value = 0.0;
            for (index, (x, slope)) in point.iter().zip(gradient).enumerate() {
                let off = x - index as f64;
                *slope = curvature(index) * off;
                value += curvature(index) * off * off / 2.0;
            }
            value
        };
        let limits = Limits { steps: 400, gradient: 1e-8 };
        let minimum = minimise(&mut point, limits, function, |step, _| told = step);
        assert!(minimum.gradient <= 1e-8 && minimum.value < 1e-12, "{minimum:?}");
        assert_eq!(told, minimum.steps);
        assert!(point.iter().enumerate().all(|(index, x)| (x - index as f64).abs() < 1e-7), "{point:?}");
    }

    #[test]
    fn the_valley_of_rosenbrock_is_followed() {
        let mut point = vec![-1.2, 1.0];
        let function = |point: &[f64], gradient: &mut [f64]| {
            let (x, y) = (point[0], point[1]);
            gradient[0] = -400.0 * x * (y - x * x) - 2.0 * (1.0 - x);
            gradient[1] = 200.0 * (y - x * x);
            100.0 * (y - x * x).powi(2) + (1.0 - x).powi(2)
        };
        let minimum = minimise(&mut point, Limits { steps: 200, gradient: 1e-9 }, function, |_, _| ());
        assert!(minimum.steps < 100, "{minimum:?}");
        assert!((point[0] - 1.0).abs() < 1e-6 && (point[1] - 1.0).abs() < 1e-6, "{point:?}");
    }

    #[test]
    fn the_limit_of_steps_holds() {
        let mut point = vec![5.0];
        let function = |point: &[f64], gradient: &mut [f64]| {
            gradient[0] = point[0].signum() * point[0].abs().powi(3);
            point[0].powi(4) / 4.0
        };
        let minimum = minimise(&mut point, Limits { steps: 2, gradient: 0.0 }, function, |_, _| ());
        assert_eq!(minimum.steps, 2);
    }
}
