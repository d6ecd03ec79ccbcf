//! `bench --peak` on the CPU: peak performance of the machine, and the share of it that the stages of the engine reach.

use std::io::Write;
use std::num::NonZeroUsize;

use dinov2_core::MlpKind;
use dinov2_edge::{CpuEngine, CpuPrecision, Engine, Extractor, Isa, PatchGrid, SelectedEngine, VitSpec};
use dinov2_kernels::Pool;
use dinov2_kernels::peak::{Arithmetic, operations_per_second, read_bytes_per_second};
use serde_json::{Map, Value, json};

use crate::machine;
use dinov2_core::statistics::{quantile, sorted};

/// Size of the buffer for measuring memory bandwidth, several times the last-level cache.
const BUFFER_BYTES: u64 = 256 << 20;

/// Peak performance of a number of threads.
struct Peaks {
    threads: usize,
    /// Per [`Arithmetic::ALL`], in 10^9 operations per second.
    gops: [f64; Arithmetic::ALL.len()],
    read_gbytes_per_s: f64,
}

impl Peaks {
    fn measure(isa: Isa, threads: NonZeroUsize) -> Self {
        let pool = Pool::new(threads);
        // At most a quarter of the memory, so that a small machine does not swap.
        let available = machine::available_memory_bytes().map_or(BUFFER_BYTES, |bytes| bytes / 4);
        let bytes = usize::try_from(available.min(BUFFER_BYTES)).unwrap_or(usize::MAX);
        Self {
            threads: threads.get(),
            gops: Arithmetic::ALL.map(|arithmetic| operations_per_second(isa, &pool, arithmetic) * 1e-9),
            read_gbytes_per_s: read_bytes_per_second(isa, &pool, bytes) * 1e-9,
        }
    }

    fn of(&self, arithmetic: Arithmetic) -> f64 {
        self.gops[arithmetic as usize]
    }

    fn json(&self) -> Value {
        let mut fields = Map::from_iter([("threads".into(), json!(self.threads))]);
        for arithmetic in Arithmetic::ALL {
            fields.insert(
                format!("{}_{}", arithmetic.name(), json_unit(arithmetic)),
                round(self.of(arithmetic)),
            );
        }
        fields.insert("read_gbytes_per_s".into(), round(self.read_gbytes_per_s));
        Value::Object(fields)
    }
}

/// A stage that consists of matrix products.
struct StageRate {
    stage: &'static str,
    arithmetic: Arithmetic,
    /// 10^9 operations per second in the median frame.
    gops: f64,
    /// Share of the peak of all threads.
    share_of_peak: f64,
}

/// Peaks of the machine and rates of the stages.
pub(super) struct PeakReport {
    isa: Isa,
    one_thread: Peaks,
    /// `None` if the engine has one thread.
    all_threads: Option<Peaks>,
    stages: Vec<StageRate>,
}

impl PeakReport {
    /// Measures the peaks of the engine's instruction set, and rates its `stages` (name, samples in milliseconds) of
    /// frames of this grid.
    pub(super) fn measure(
        engine: &SelectedEngine,
        grid: PatchGrid,
        stages: &[(&'static str, Vec<f64>)],
    ) -> Self {
        let isa = engine.downcast_ref::<CpuEngine>().map_or_else(Isa::detect, CpuEngine::isa);
        let one_thread = Peaks::measure(isa, NonZeroUsize::MIN);
        let threads = engine.facts().threads.filter(|threads| threads.get() > 1);
        let all_threads = threads.map(|threads| Peaks::measure(isa, threads));
        let peaks = all_threads.as_ref().unwrap_or(&one_thread);
        let rate = |(stage, samples): &(&'static str, Vec<f64>)| {
            let operations = stage_operations(engine.spec(), grid, stage)?;
            let gops = operations / quantile(&sorted(samples.clone()), 0.5) * 1e-6;
            let arithmetic = stage_arithmetic(engine, stage);
            Some(StageRate { stage, arithmetic, gops, share_of_peak: gops / peaks.of(arithmetic) })
        };
        let stages = stages.iter().filter_map(rate).collect();
        Self { isa, one_thread, all_threads, stages }
    }

    /// `{isa, one_thread, all_threads}`; the last is null if the engine has one thread.
    pub(super) fn peaks_json(&self) -> Value {
        json!({
            "isa": self.isa.name(),
            "one_thread": self.one_thread.json(),
            "all_threads": self.all_threads.as_ref().map(Peaks::json),
        })
    }

    /// `{STAGE: {arithmetic, gops, share_of_peak}}`; `gflops` in the place of `gops` for floats.
    pub(super) fn rates_json(&self) -> Value {
        let rates = self.stages.iter().map(|rate| {
            let mut fields = Map::from_iter([("arithmetic".into(), json!(rate.arithmetic.name()))]);
            fields.insert(json_unit(rate.arithmetic).into(), round(rate.gops));
            fields.insert("share_of_peak".into(), round(rate.share_of_peak));
            (rate.stage.to_string(), Value::Object(fields))
        });
        Value::Object(rates.collect())
    }

    /// Prints both as tables.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        let columns = || std::iter::once(&self.one_thread).chain(&self.all_threads);
        write!(stdout, "{:<16}", format!("peak ({})", self.isa.name()))?;
        for peaks in columns() {
            let plural = if peaks.threads == 1 { "" } else { "s" };
            write!(stdout, " {:>11}", format!("{} thread{plural}", peaks.threads))?;
        }
        writeln!(stdout)?;
        for arithmetic in Arithmetic::ALL {
            write!(stdout, "{:<16}", format!("{} {}", arithmetic.name(), unit(arithmetic)))?;
            for peaks in columns() {
                write!(stdout, " {:>11.1}", peaks.of(arithmetic))?;
            }
            writeln!(stdout)?;
        }
        write!(stdout, "{:<16}", "read GB/s")?;
        for peaks in columns() {
            write!(stdout, " {:>11.1}", peaks.read_gbytes_per_s)?;
        }
        writeln!(stdout)?;
        if !self.stages.is_empty() {
            writeln!(stdout, "{:<16} {:>9} {:>9}", "stage", "rate", "of peak")?;
        }
        for StageRate { stage, arithmetic, gops, share_of_peak } in &self.stages {
            let (share, unit) = (100.0 * share_of_peak, unit(*arithmetic));
            writeln!(stdout, "{stage:<16} {gops:>9.1} {share:>7.1} %  {unit} in {}", arithmetic.name())?;
        }
        Ok(())
    }
}

fn unit(arithmetic: Arithmetic) -> &'static str {
    match arithmetic {
        Arithmetic::F32 | Arithmetic::Half => "GFLOP/s",
        Arithmetic::Int8 | Arithmetic::Int16 => "Gop/s",
    }
}

fn json_unit(arithmetic: Arithmetic) -> &'static str {
    match arithmetic {
        Arithmetic::F32 | Arithmetic::Half => "gflops",
        Arithmetic::Int8 | Arithmetic::Int16 => "gops",
    }
}

pub(super) fn round(value: f64) -> Value {
    json!((value * 1e4).round() / 1e4)
}

/// Arithmetic of a stage.
fn stage_arithmetic(engine: &SelectedEngine, stage: &str) -> Arithmetic {
    let Some(engine) = engine.downcast_ref::<CpuEngine>() else { return Arithmetic::F32 };
    match (stage, engine.precision()) {
        ("attention", _) if engine.has_attention_i16() => Arithmetic::Int16,
        ("attention", _) | (_, CpuPrecision::F32) => Arithmetic::F32,
        (_, CpuPrecision::Half) => Arithmetic::Half,
        (_, CpuPrecision::Int8) => Arithmetic::Int8,
    }
}

/// Multiplications and additions of a stage's matrix products in one frame, over all blocks; `None` for other
/// stages.
fn stage_operations(spec: &VitSpec, grid: PatchGrid, stage: &str) -> Option<f64> {
    let (tokens, dim, hidden) = (spec.tokens(grid), spec.dim, spec.mlp_hidden);
    let products = match stage {
        "qkv" => dim * 3 * dim,
        // Scores and weighted values: each query and each channel meets every token.
        "attention" => 2 * tokens * dim,
        "projection" => dim * dim,
        "mlp" => match spec.mlp {
            MlpKind::Gelu => 2 * dim * hidden,
            MlpKind::SwiGlu => 3 * dim * hidden,
        },
        _ => return None,
    };
    Some(2.0 * (spec.depth * tokens) as f64 * products as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_add_up_to_the_published_count() {
        // DeiT-S/16 has the same blocks and 197 tokens: 4.6 G multiplications (Touvron et al. 2021, "FLOPs"), 0.06 G of
        // them in the patch embedding.
        let spec = crate::args::bundled_model().unwrap().spec().clone();
        let grid = PatchGrid { rows: 14, cols: 14 };
        let count = |stage| stage_operations(&spec, grid, stage).unwrap();
        let total: f64 = ["qkv", "attention", "projection", "mlp"].map(count).iter().sum();
        assert!((total / 2.0 - 4.54e9).abs() < 0.05e9, "{total:e}");
        // Only attention grows with the square of the number of tokens.
        let attention = |rows| stage_operations(&spec, PatchGrid { rows, cols: 1 }, "attention").unwrap();
        assert_eq!(attention(7) / attention(3), 4.0);
        assert_eq!(stage_operations(&spec, grid, "layer_norm"), None);
    }
}
