//! `bench --peak` on a GPU: peak performance of the device, and the share of it that the stages of the engine reach.

use std::io::Write;

use dinov2_edge::PatchGrid;
use dinov2_edge::gpu::{GpuPeaks, GpuPrecision, StageWork, WgpuEngine};
use serde_json::{Map, Value, json};

use super::peak::round;
use dinov2_core::statistics::{quantile, sorted};

/// Rates of a stage.
struct StageRate {
    stage: &'static str,
    gops: f64,
    gbytes_per_s: f64,
    /// Share of the arithmetic's peak; `None` for a stage without matrix products.
    share_of_peak: Option<f64>,
    share_of_copy: f64,
}

/// Peaks of the device and rates of the stages.
pub(super) struct GpuPeakReport {
    peaks: GpuPeaks,
    stages: Vec<StageRate>,
}

impl GpuPeakReport {
    /// Measures the device, and rates the engine's `stages` (name, samples in milliseconds) of frames of this grid.
    pub(super) fn measure(
        engine: &WgpuEngine,
        grid: PatchGrid,
        stages: &[(&'static str, Vec<f64>)],
    ) -> anyhow::Result<Self> {
        let peaks = GpuPeaks::measure(engine.gpu())?;
        let products = match engine.precision() {
            GpuPrecision::F32 => peaks.f32,
            GpuPrecision::F16 => peaks.cooperative.or(peaks.f16).unwrap_or(peaks.f32),
            GpuPrecision::Int8 => peaks.int8,
        };
        let rate = |work: StageWork| {
            let name = work.stage.name();
            let (_, samples) = stages.iter().find(|(stage, _)| *stage == name)?;
            let seconds = quantile(&sorted(samples.clone()), 0.5) * 1e-3;
            // Attention and the patch embedding compute in f32 in every precision.
            let peak = if matches!(name, "attention" | "patch_embed") { peaks.f32 } else { products };
            Some(StageRate {
                stage: name,
                gops: work.operations / seconds * 1e-9,
                gbytes_per_s: work.bytes / seconds * 1e-9,
                share_of_peak: (work.operations > 0.0).then(|| work.operations / seconds / peak),
                share_of_copy: work.bytes / seconds / peaks.copy_bytes,
            })
        };
        let stages = engine.stage_work(grid).into_iter().filter_map(rate).collect();
        Ok(Self { peaks, stages })
    }

    fn peaks(&self) -> [(&'static str, Option<f64>); 5] {
        let GpuPeaks { f32, f16, int8, cooperative, copy_bytes } = self.peaks;
        [
            ("f32_gflops", Some(f32)),
            ("f16_gflops", f16),
            ("int8_gops", Some(int8)),
            ("cooperative_gflops", cooperative),
            ("copy_gbytes_per_s", Some(copy_bytes)),
        ]
    }

    /// `{f32_gflops, f16_gflops, int8_gops, cooperative_gflops, copy_gbytes_per_s}`; null for what the device lacks.
    pub(super) fn peaks_json(&self) -> Value {
        let fields = self
            .peaks()
            .map(|(name, peak)| (name.to_string(), peak.map_or(Value::Null, |peak| round(peak * 1e-9))));
        Value::Object(Map::from_iter(fields))
    }

    /// `{STAGE: {gops, gbytes_per_s, share_of_peak, share_of_copy}}`.
    pub(super) fn rates_json(&self) -> Value {
        let rates = self.stages.iter().map(|rate| {
            let value = json!({
                "gops": round(rate.gops),
                "gbytes_per_s": round(rate.gbytes_per_s),
                "share_of_peak": rate.share_of_peak.map(round),
                "share_of_copy": round(rate.share_of_copy),
            });
            (rate.stage.to_string(), value)
        });
        Value::Object(rates.collect())
    }

    /// Prints both as tables.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        for (name, peak) in self.peaks() {
            let peak = peak.map_or("none".into(), |peak| format!("{:.1}", peak * 1e-9));
            writeln!(stdout, "{:<19} {peak:>9}", format!("peak {name}").replace('_', " "))?;
        }
        writeln!(stdout, "{:<14} {:>10} {:>9} {:>9} {:>9}", "stage", "Gop/s", "of peak", "GB/s", "of copy")?;
        for StageRate { stage, gops, gbytes_per_s, share_of_peak, share_of_copy } in &self.stages {
            let of_peak = share_of_peak.map_or(String::new(), |share| format!("{:.1} %", 100.0 * share));
            let of_copy = format!("{:.1} %", 100.0 * share_of_copy);
            writeln!(stdout, "{stage:<14} {gops:>10.1} {of_peak:>9} {gbytes_per_s:>9.2} {of_copy:>9}")?;
        }
        Ok(())
    }
}
