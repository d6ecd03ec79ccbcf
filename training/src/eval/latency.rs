//! Latency: models take turns in every round, so that other load on the machine affects all of them.

use std::time::Instant;

use dinov2_core::ImageView;
use dinov2_eval::{Measure, Unit};
use dinov2_io::Size;

use super::images::short_side;
use super::{EvalError, LoadedModel};
use crate::progress::task_bar;
use crate::statistics::median;

/// Rounds that are not counted: buffers are sized and caches filled.
const WARM_UP_ROUNDS: usize = 2;

/// Sizes and number of rounds.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Sizes of a square image: the short side, or exactly this.
    pub sizes: Vec<Size>,
    /// Rounds that are counted.
    pub rounds: usize,
}

impl Latency {
    /// Median milliseconds of every model, and the median over rounds of the ratio to the first model.
    ///
    /// # Errors
    /// A size that is no multiple of a model's patch size, or an error of an engine.
    pub fn evaluate(&self, models: &mut [LoadedModel]) -> Result<Vec<Vec<Measure>>, EvalError> {
        let mut measures: Vec<Vec<Measure>> = models.iter().map(|_| Vec::new()).collect();
        for &size in &self.sizes {
            let task = format!("latency {size}");
            let times_ms = self.times(size, models)?;
            for ((own, measures), model) in times_ms.iter().zip(&mut measures).zip(models.iter()) {
                let ratios = own.iter().zip(&times_ms[0]).map(|(own, first)| own / first).collect();
                measures.push(Measure::new(&task, "median", Unit::Milliseconds, median(own.clone())));
                measures.push(Measure::new(&task, "ratio to the first", Unit::Ratio, median(ratios)));
                let side = short_side(size, model.spec().patch_size)?;
                measures.push(Measure::image_side(&task, side));
            }
        }
        Ok(measures)
    }

    /// Milliseconds per model and round.
    fn times(&self, size: Size, models: &mut [LoadedModel]) -> Result<Vec<Vec<f64>>, EvalError> {
        let pictures = models.iter().map(|model| picture(size, model.spec().patch_size));
        let pictures = pictures.collect::<Result<Vec<_>, _>>()?;
        let mut times_ms = vec![Vec::with_capacity(self.rounds); models.len()];
        let names: Vec<&str> = models.iter().map(LoadedModel::name).collect();
        let bar = task_bar("latency", &names.join(", "), WARM_UP_ROUNDS + self.rounds, "rounds");
        for round in 0..WARM_UP_ROUNDS + self.rounds {
            for ((model, (pixels, width, height)), times_ms) in
                models.iter_mut().zip(&pictures).zip(&mut times_ms)
            {
                let image = ImageView::new(pixels, *width, *height).expect("pixels of the stated size");
                let start = Instant::now();
                model.features(image)?;
                if round >= WARM_UP_ROUNDS {
                    times_ms.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
            bar.advance(1);
        }
        bar.finish();
        Ok(times_ms)
    }

    /// The protocol, as a note for the table.
    pub fn note(&self) -> String {
        format!(
            "latency: one picture, models in turn, {} rounds after {WARM_UP_ROUNDS}; medians of times and of ratios within a round; \
             a size is brought to whole patches, so it may differ between models (short side of the images)",
            self.rounds
        )
    }
}

/// A textured image, its width and height.
fn picture(size: Size, patch_size: usize) -> Result<(Vec<u8>, usize, usize), EvalError> {
    let side = match size {
        Size::Short(side) => side,
        Size::Exact { width_px, height_px } => width_px.max(height_px),
        Size::Native => {
            return Err(EvalError::input("latency", "a size", "native"));
        }
    };
    let target = size.target(side, side, patch_size);
    let (width, height) = target.map_err(|source| EvalError::Fit { source, path: format!("size {size}") })?;
    // Knuth's multiplicative hash.
    let value = |index: u64| (index.wrapping_mul(2_654_435_761) >> 13) as u8;
    let pixels = (0..(width * height * 3) as u64).map(value).collect();
    Ok((pixels, width, height))
}
