//! Opens the GPU engine, and measures whether it is faster than the CPU engine: once per machine and model; the result is stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dinov2_core::{ExtractError, Extractor, Features, ImageView, Taps};
use dinov2_cpu::{CpuConfig, CpuPrecision};
use dinov2_files::chain;
use dinov2_weights::Model;
use dinov2_wgpu::{Gpu, GpuConfig, GpuError, GpuPrecision, Tuning, WgpuEngine};
use serde::{Deserialize, Serialize};

use super::cpu::{self, cpu_config};
use super::{EngineConfig, EngineError, Fallback, Precision, SelectedEngine};

/// Side of the measured frame in patches: 224 pixels at patch size 14.
const SIDE: usize = 16;
/// Warm-up frames, which are not timed: they plan, compile and page in.
const WARMUP: usize = 2;
/// Timed frames per engine; the engines alternate.
const ROUNDS: usize = 5;

/// Times of one frame on both engines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Median of the CPU engine.
    pub cpu_ms: f64,
    /// Median of the GPU engine.
    pub gpu_ms: f64,
}

impl Comparison {
    /// True if the GPU engine is faster.
    pub fn favours_gpu(self) -> bool {
        self.gpu_ms < self.cpu_ms
    }
}

/// [`super::Backend::Wgpu`].
pub(super) fn open(model: &Model, config: &EngineConfig) -> Result<SelectedEngine, EngineError> {
    let backend = dinov2_wgpu::BACKEND;
    if config.incremental.is_some() {
        return Err(EngineError::Incremental { backend });
    }
    if config.isa.is_some() {
        return Err(EngineError::Isa { backend });
    }
    let gpu = open_gpu(config).map_err(EngineError::load)?;
    let precision = config.precision.on_gpu(model, gpu.facts().f16)?;
    let engine = WgpuEngine::new(&gpu, model, precision).map_err(EngineError::load)?;
    Ok(SelectedEngine::new_with(engine, "backend wgpu was requested"))
}

/// [`super::Backend::Auto`] for a model file: the GPU engine if it is faster, with the CPU engine as its fallback; otherwise only notes.
pub(super) fn open_if_faster(
    model: &Model,
    config: &EngineConfig,
) -> Result<(Option<SelectedEngine>, Vec<String>), EngineError> {
    let (cpu, _) = cpu_config(model, config)?;
    let (found, notes) = gpu_if_faster(model, config, cpu);
    Ok(match found {
        None => (None, notes),
        Some((engine, reason)) => {
            let fallback = Some(Fallback { model: model.clone(), config: cpu });
            (Some(SelectedEngine { notes, fallback, ..SelectedEngine::new_with(engine, reason) }), Vec::new())
        }
    })
}

impl Precision {
    /// The precision on a GPU. `f16`: whether the GPU supports f16. `Auto` is f16 if supported (its error is below the resolution of
    /// the gate), otherwise int8 if [`Self::choose`] allows it, otherwise f32.
    fn on_gpu(self, model: &Model, f16: bool) -> Result<GpuPrecision, EngineError> {
        Ok(match self {
            Self::Auto if f16 => GpuPrecision::F16,
            Self::Auto => match Self::choose(model).0 {
                CpuPrecision::Int8 => GpuPrecision::Int8,
                CpuPrecision::F32 | CpuPrecision::Half => GpuPrecision::F32,
            },
            Self::F32 => GpuPrecision::F32,
            Self::F16 => GpuPrecision::F16,
            Self::Bf16 => return Err(EngineError::GpuPrecision),
            Self::Int8 => GpuPrecision::Int8,
        })
    }
}

/// Opens the GPU that the configuration names, with a cache under `$XDG_CACHE_HOME/dinov2-edge/gpu` or `~/.cache`.
///
/// # Errors
/// No such GPU, or an error of the driver.
pub fn open_gpu(config: &EngineConfig) -> Result<Gpu, GpuError> {
    let adapter = config.gpu.clone();
    Gpu::open(&GpuConfig { adapter, cache: cache_folder(), tuning: Tuning::Hardware, ..GpuConfig::default() })
}

/// `$XDG_CACHE_HOME/dinov2-edge/gpu`, or under `~/.cache`; `None` without a home.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.map(|cache| cache.join("dinov2-edge/gpu"))
}

/// The GPU engine and the reason, if it is faster than the CPU engine on this machine; notes in either case. Software GPUs are not
/// considered.
fn gpu_if_faster(
    model: &Model,
    config: &EngineConfig,
    cpu: CpuConfig,
) -> (Option<(WgpuEngine, String)>, Vec<String>) {
    let is_requested = config.gpu.is_some();
    if config.isa.is_some() || config.incremental.is_some() || !(is_requested || may_have_gpu()) {
        return (None, Vec::new());
    }
    let mut notes = Vec::new();
    let found = try_gpu(model, config, cpu, &mut notes).unwrap_or_else(|error| {
        notes.push(format!("{}; using the CPU", chain(&error)));
        None
    });
    (found, notes)
}

/// True if there may be a GPU: on Linux and Android, if a device file of a driver exists. Cheaper than loading the drivers.
fn may_have_gpu() -> bool {
    /// NVIDIA (desktop, Jetson), Mali and Adreno drivers without a DRM node.
    const DEVICES: [&str; 5] =
        ["/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0", "/dev/mali0", "/dev/kgsl-3d0"];
    let is_render_node = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("renderD");
    !cfg!(any(target_os = "linux", target_os = "android"))
        || fs::read_dir("/sys/class/drm").into_iter().flatten().flatten().any(is_render_node)
        || DEVICES.iter().any(|device| Path::new(device).exists())
}

fn try_gpu(
    model: &Model,
    config: &EngineConfig,
    cpu: CpuConfig,
    notes: &mut Vec<String>,
) -> Result<Option<(WgpuEngine, String)>, EngineError> {
    let gpu = match open_gpu(config) {
        // A missing driver is not reported; a missing GPU that was requested by name is.
        Err(GpuError::NoAdapter { .. }) if config.gpu.is_none() => return Ok(None),
        opened => opened.map_err(EngineError::load)?,
    };
    if gpu.facts().software {
        let software = || GpuError::Driver(format!("{} is a software GPU", gpu.facts().name));
        return if config.gpu.is_some() { Err(EngineError::load(software())) } else { Ok(None) };
    }
    if_faster(&gpu, model, config, cpu, notes)
}

fn if_faster(
    gpu: &Gpu,
    model: &Model,
    config: &EngineConfig,
    cpu: CpuConfig,
    notes: &mut Vec<String>,
) -> Result<Option<(WgpuEngine, String)>, EngineError> {
    // A precision that only the CPU engine supports.
    let Ok(precision) = config.precision.on_gpu(model, gpu.facts().f16) else { return Ok(None) };
    let known = last_comparison(gpu, model, config);
    if known.is_some_and(|known| !known.favours_gpu()) {
        return Ok(None);
    }
    let mut engine = WgpuEngine::new(gpu, model, precision).map_err(EngineError::load)?;
    let describe = |Comparison { cpu_ms, gpu_ms }| {
        format!("a frame took {gpu_ms:.1} ms on {} and {cpu_ms:.1} ms on the CPU", gpu.facts().name)
    };
    let comparison = match known {
        Some(known) => known,
        None => {
            let comparison = measure(&mut cpu::load(model, cpu)?, &mut engine).map_err(EngineError::load)?;
            keep(gpu, model, config, comparison);
            notes.push(format!("{}: measured once for this model and stored", describe(comparison)));
            comparison
        }
    };
    Ok(comparison.favours_gpu().then(|| (engine, describe(comparison))))
}

/// Name of the file that stores a comparison, by model shape, storage, precision and threads.
fn file_name(model: &Model, config: &EngineConfig) -> String {
    let spec = model.spec();
    let threads = config.threads.map_or("all".into(), |threads| threads.to_string());
    let precision = format!("{:?}", config.precision).to_lowercase();
    let shape = format!("{}x{}-{}", spec.dim, spec.depth, spec.mlp_hidden);
    format!("cpu-or-gpu-{shape}-{:?}-{precision}-{threads}.json", model.metadata().storage).to_lowercase()
}

/// The stored comparison for this device, model shape, precision and number of threads.
pub fn last_comparison(gpu: &Gpu, model: &Model, config: &EngineConfig) -> Option<Comparison> {
    serde_json::from_slice(&gpu.kept(&file_name(model, config))?).ok()
}

fn keep(gpu: &Gpu, model: &Model, config: &EngineConfig, comparison: Comparison) {
    if let Ok(json) = serde_json::to_vec(&comparison) {
        gpu.keep(&file_name(model, config), &json);
    }
}

/// Measures both engines alternately on the same frame; medians.
fn measure(cpu: &mut dyn Extractor, gpu: &mut dyn Extractor) -> Result<Comparison, ExtractError> {
    let side_px = SIDE * cpu.spec().patch_size;
    let pixels: Vec<u8> = (0..side_px * side_px * 3).map(|at| (at * 7 % 251) as u8).collect();
    let image = ImageView::new(&pixels, side_px, side_px).expect("pixels of this size");
    let mut features = Features::new();
    let mut frame_ms = |engine: &mut dyn Extractor| -> Result<f64, ExtractError> {
        let start = Instant::now();
        engine.extract(image, &Taps::none(), &mut features)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let (mut cpu_ms, mut gpu_ms) = (Vec::new(), Vec::new());
    for _ in 0..WARMUP + ROUNDS {
        cpu_ms.push(frame_ms(cpu)?);
        gpu_ms.push(frame_ms(gpu)?);
    }
    let median = |times: &mut Vec<f64>| {
        let times = &mut times[WARMUP..];
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    Ok(Comparison { cpu_ms: median(&mut cpu_ms), gpu_ms: median(&mut gpu_ms) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use dinov2_core::VitSpec;
    use dinov2_weights::{ConvertOptions, Storage};
    use std::time::Duration;

    /// The machine's GPU, or a software GPU. Without any, the test is skipped with a message; if DINOV2_TEST_GPU is set, it fails.
    pub(crate) fn gpu_under_test(config: &GpuConfig) -> Option<Gpu> {
        match Gpu::open(config) {
            Err(GpuError::NoAdapter { .. }) if std::env::var_os("DINOV2_TEST_GPU").is_none() => {
                eprintln!(
                    "SKIPPED: no GPU driver here (Debian: apt install mesa-vulkan-drivers for a software one)"
                );
                None
            }
            opened => Some(opened.unwrap()),
        }
    }

    /// An engine that only sleeps.
    struct Sleeper<'a>(&'a VitSpec, Duration);

    impl Extractor for Sleeper<'_> {
        fn spec(&self) -> &VitSpec {
            self.0
        }

        fn extract(&mut self, _: ImageView<'_>, _: &Taps, _: &mut Features) -> Result<(), ExtractError> {
            std::thread::sleep(self.1);
            Ok(())
        }
    }

    #[test]
    fn the_faster_engine_is_favoured() {
        let model = dinov2_bundled::bundled_model().unwrap();
        let engine = |ms| Sleeper(model.spec(), Duration::from_millis(ms));
        assert!(measure(&mut engine(20), &mut engine(1)).unwrap().favours_gpu());
        assert!(!measure(&mut engine(1), &mut engine(20)).unwrap().favours_gpu());
    }

    #[test]
    fn a_comparison_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Some(folder.path().into());
        let Some(gpu) = gpu_under_test(&GpuConfig { cache, ..GpuConfig::default() }) else { return };
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/golden/hf_mlp");
        let path = folder.path().join("model.safetensors");
        let options = ConvertOptions::new(Storage::F32);
        dinov2_weights::convert(Path::new(source), &path, &options, &mut |_| {}).unwrap();
        let model = Model::open(&path).unwrap();
        let config = EngineConfig::default();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let chosen = if_faster(&gpu, &model, &config, CpuConfig::default(), &mut first).unwrap();
        let kept = last_comparison(&gpu, &model, &config).unwrap();
        assert!(kept.cpu_ms > 0.0 && kept.gpu_ms > 0.0, "{kept:?}");
        assert_eq!(chosen.is_some(), kept.favours_gpu(), "{kept:?}");
        assert!(first.len() == 1 && first[0].contains("measured once"), "{first:?}");
        let again = if_faster(&gpu, &model, &config, CpuConfig::default(), &mut second).unwrap();
        assert_eq!((again.is_some(), second.len()), (chosen.is_some(), 0), "{second:?}");
        // Each precision is measured separately; CPU-only precisions are skipped.
        let f32 = EngineConfig { precision: Precision::F32, ..EngineConfig::default() };
        assert_eq!(last_comparison(&gpu, &model, &f32), None);
        let bf16 = EngineConfig { precision: Precision::Bf16, ..EngineConfig::default() };
        assert!(if_faster(&gpu, &model, &bf16, CpuConfig::default(), &mut second).unwrap().is_none());
        // A stored comparison is used without measuring again.
        keep(&gpu, &model, &config, Comparison { cpu_ms: 2.0, gpu_ms: 1.0 });
        let (engine, reason) =
            if_faster(&gpu, &model, &config, CpuConfig::default(), &mut second).unwrap().unwrap();
        assert_eq!(engine.spec(), model.spec());
        assert!(
            reason.starts_with("a frame took 1.0 ms on ") && reason.ends_with(" and 2.0 ms on the CPU"),
            "{reason}"
        );
    }
}
