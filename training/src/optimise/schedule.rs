//! The learning rate over a run.

use crate::recipe::OptimiserRecipe;

/// Learning rate: a linear rise, then half a cosine down to a share of the largest.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    largest: f64,
    last: f64,
    warm_up_steps: u64,
    steps: u64,
}

impl Schedule {
    /// The schedule of a run of `steps`.
    pub fn new(recipe: &OptimiserRecipe, steps: u64) -> Self {
        Self {
            largest: recipe.learning_rate,
            last: recipe.learning_rate * recipe.final_share,
            warm_up_steps: recipe.warm_up_steps.min(steps.saturating_sub(1)),
            steps,
        }
    }

    /// The learning rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warm_up_steps {
            return self.largest * (step + 1) as f64 / (self.warm_up_steps + 1) as f64;
        }
        let length = (self.steps - self.warm_up_steps).max(1) as f64;
        let done = ((step - self.warm_up_steps) as f64 / length).min(1.0);
        self.last + (self.largest - self.last) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls() {
        let recipe =
            OptimiserRecipe { learning_rate: 2.0, final_share: 0.1, warm_up_steps: 3, ..Default::default() };
        let schedule = Schedule::new(&recipe, 13);
        let rates: Vec<f64> = (0..14).map(|step| schedule.at(step)).collect();
        assert_eq!(rates[..4], [0.5, 1.0, 1.5, 2.0]);
        assert!((rates[8] - 1.1).abs() < 1e-12 && (rates[13] - 0.2).abs() < 1e-12);
        assert!(rates[3..].is_sorted_by(|a, b| a > b));
        assert!(Schedule::new(&recipe, 1).at(0) > 0.0);
    }
}
