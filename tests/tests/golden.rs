//! Both engines, the position tables and the inferred shapes against transformers, timm and the official rules
//! (`fixtures/make_golden.py`).

mod common;

use common::{Case, Converted, Picture, Verdict, cases};
use dinov2_core::{ExtractError, Extractor, Facet, Features, PatchGrid, Tap, Taps, VitSpec};
use dinov2_cpu::{CpuConfig, CpuEngine};
use dinov2_weights::Model;

/// Relative L2 limits per tensor: the references themselves are within 1e-6 of float64.
const CPU_LIMIT: f64 = 1e-5;
/// A resampled table is a sum of 16 products; only the order of the sum is free.
const POSITION_LIMIT: f64 = 2e-6;

fn every_tap(spec: &VitSpec) -> Taps {
    let of_layer = |layer| {
        let tokens = [false, true].map(|norm| Tap::Layer { layer, norm });
        let facets = [Facet::Query, Facet::Key, Facet::Value].map(|facet| Tap::Facet { layer, facet });
        tokens.into_iter().chain(facets)
    };
    Taps::new((0..spec.depth).flat_map(of_layer).chain([Tap::ClsAttention]))
}

/// Compares what `engine` makes of every picture of a case with what the source made of it.
fn compare_case(case: &Case, engine: &mut dyn Extractor, limit: f64) -> Verdict {
    let mut verdict = Verdict::new(limit);
    let taps = every_tap(engine.spec());
    let mut features = Features::new();
    for index in 0..case.number("images") {
        let picture = case.picture(index);
        let what = |name: &str| format!("{}: image{index}.{name}", case.name);
        if let Err(error) = engine.extract(picture.view(), &taps, &mut features) {
            verdict.fail(format!("{}: {error}", what("tokens")));
            continue;
        }
        let expected = case.tensor(&format!("image{index}.tokens")).expect("final tokens");
        verdict.compare(&what("tokens"), features.tokens(), &expected);
        for (tap, got) in features.taps() {
            if let Some(expected) = case.tensor(&format!("image{index}.{tap}")) {
                verdict.compare(&what(&tap.to_string()), got, &expected);
            }
        }
    }
    verdict.print(&case.name);
    verdict
}

/// Compares the final tokens of the sizes at which a rounded scale factor goes wrong.
fn compare_hard_sizes(case: &Case, engine: &mut dyn Extractor, limit: f64) -> Verdict {
    let mut verdict = Verdict::new(limit);
    let (stride, dim) = (case.number("token_stride"), engine.spec().dim);
    for name in case.names() {
        let Some(size) = name.strip_prefix("tokens.") else { continue };
        let (width_px, height_px) = sides(size);
        let mut features = Features::new();
        match engine.extract(Picture::pattern(width_px, height_px).view(), &Taps::none(), &mut features) {
            Ok(()) => {
                let got = every_row(features.tokens(), dim, stride);
                let expected = case.tensor(&name).expect("listed");
                verdict.compare(&format!("{}: {name}", case.name), &got, &expected);
            }
            Err(error) => verdict.fail(format!("{}: {name}: {error}", case.name)),
        }
    }
    verdict.print(&case.name);
    verdict
}

fn cpu_engine(converted: &Converted) -> Box<dyn Extractor> {
    let engine = CpuEngine::new(&converted.model, CpuConfig::default());
    Box::new(engine.unwrap_or_else(|error| panic!("{error}")))
}

fn sides(size: &str) -> (usize, usize) {
    let (first, second) = size.split_once('x').expect("a size");
    (first.parse().expect("a number"), second.parse().expect("a number"))
}

/// Every `stride`-th row of `[n, dim]`.
fn every_row(values: &[f32], dim: usize, stride: usize) -> Vec<f32> {
    values.chunks_exact(dim).step_by(stride).flatten().copied().collect()
}

fn positions(model: &Model, rows: usize, cols: usize) -> Vec<f32> {
    model.position_embedding(PatchGrid { rows, cols }).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn shapes_are_inferred() {
    for case in cases("golden").iter().chain(&cases("hard_sizes")) {
        assert_eq!(case.convert().model.spec(), &case.spec(), "{}", case.name);
    }
}

#[test]
fn position_tables_equal_their_source() {
    let mut verdict = Verdict::new(POSITION_LIMIT);
    for case in cases("golden") {
        let converted = case.convert();
        let patch = converted.model.spec().patch_size;
        for index in 1..case.number("images") {
            let picture = case.picture(index);
            let got = positions(&converted.model, picture.height_px / patch, picture.width_px / patch);
            let name = format!("image{index}.positions");
            let expected = case.tensor(&name).expect("positions");
            verdict.compare(&format!("{}: {name}", case.name), &got, &expected);
        }
    }
    verdict.print("positions");
    verdict.finish();
}

#[test]
fn position_tables_of_the_hard_sizes_equal_their_source() {
    let mut verdict = Verdict::new(POSITION_LIMIT);
    for case in cases("hard_sizes") {
        let converted = case.convert();
        let (stride, dim) = (case.number("table_stride"), converted.model.spec().dim);
        for name in case.names() {
            let Some(grid) = name.strip_prefix("positions.") else { continue };
            let (rows, cols) = sides(grid);
            let got = every_row(&positions(&converted.model, rows, cols), dim, stride);
            let expected = case.tensor(&name).expect("listed");
            verdict.compare(&format!("{}: {name}", case.name), &got, &expected);
        }
    }
    verdict.print("positions of hard sizes");
    verdict.finish();
}

#[test]
fn cpu_engine_agrees_with_every_source() {
    let mut verdict = Verdict::new(CPU_LIMIT);
    for case in cases("golden") {
        verdict.absorb(compare_case(&case, cpu_engine(&case.convert()).as_mut(), CPU_LIMIT));
    }
    verdict.finish();
}

#[test]
fn cpu_engine_agrees_on_the_hard_sizes() {
    let mut verdict = Verdict::new(CPU_LIMIT);
    for case in cases("hard_sizes") {
        verdict.absorb(compare_hard_sizes(&case, cpu_engine(&case.convert()).as_mut(), CPU_LIMIT));
    }
    verdict.finish();
}

fn check_refusal(engine: &mut dyn Extractor) {
    let got = engine.extract(Picture::pattern(15, 14).view(), &Taps::none(), &mut Features::new());
    assert!(matches!(got, Err(ExtractError::Grid(_))), "{got:?}");
}

#[test]
fn cpu_engine_refuses_images_off_the_patch_grid() {
    check_refusal(cpu_engine(&cases("golden")[0].convert()).as_mut());
}

/// The same for the engine that runs ONNX files, and for the files that we export.
#[cfg(not(emulated))]
mod onnx {
    use std::num::NonZeroUsize;

    use super::*;
    use dinov2_onnx::{ExportConfig, OnnxConfig, OnnxEngine, Resolution, export};

    const ONNX_LIMIT: f64 = 1e-4;

    fn onnx_config() -> OnnxConfig {
        OnnxConfig { threads: NonZeroUsize::MIN }
    }

    fn onnx_engine(converted: &Converted) -> Box<dyn Extractor> {
        let engine = OnnxEngine::from_model(&converted.model, onnx_config());
        Box::new(engine.unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn engine_agrees_with_every_source() {
        let mut verdict = Verdict::new(ONNX_LIMIT);
        for case in cases("golden") {
            verdict.absorb(compare_case(&case, onnx_engine(&case.convert()).as_mut(), ONNX_LIMIT));
        }
        verdict.finish();
    }

    #[test]
    fn engine_agrees_on_the_hard_sizes() {
        let mut verdict = Verdict::new(ONNX_LIMIT);
        for case in cases("hard_sizes") {
            verdict.absorb(compare_hard_sizes(&case, onnx_engine(&case.convert()).as_mut(), ONNX_LIMIT));
        }
        verdict.finish();
    }

    #[test]
    fn exported_files_agree_with_every_source() {
        let mut verdict = Verdict::new(ONNX_LIMIT);
        for case in cases("golden") {
            let converted = case.convert();
            let picture = case.picture(1);
            let grid = picture.view().grid(converted.model.spec().patch_size).expect("whole patches");
            let expected = case.tensor("image1.tokens").expect("final tokens");
            for (resolution, name) in [(Resolution::Static(grid), "static"), (Resolution::Dynamic, "dynamic")]
            {
                let path = converted.path.with_file_name(format!("{name}.onnx"));
                export(&converted.model, &ExportConfig::new(resolution), &path)
                    .unwrap_or_else(|error| panic!("{}: {error}", case.name));
                let mut engine = OnnxEngine::open(&path, onnx_config())
                    .unwrap_or_else(|error| panic!("{}: {name}: {error}", case.name));
                let mut features = Features::new();
                engine
                    .extract(picture.view(), &Taps::none(), &mut features)
                    .unwrap_or_else(|error| panic!("{}: {name}: {error}", case.name));
                verdict.compare(&format!("{}: {name}", case.name), features.tokens(), &expected);
            }
        }
        verdict.print("exported files");
        verdict.finish();
    }

    #[test]
    fn engine_refuses_images_off_the_patch_grid() {
        check_refusal(onnx_engine(&cases("golden")[0].convert()).as_mut());
    }
}

/// The same for the GPU engine.
#[cfg(not(emulated))]
mod gpu {
    use super::*;
    use crate::common::gpu::gpu;
    use dinov2_wgpu::{Gpu, GpuPrecision, WgpuEngine};

    const GPU_LIMIT: f64 = 1e-4;

    fn gpu_engine(gpu: &Gpu, converted: &Converted) -> Box<dyn Extractor> {
        let engine = WgpuEngine::new(gpu, &converted.model, GpuPrecision::F32);
        Box::new(engine.unwrap_or_else(|error| panic!("{error}")))
    }

    #[test]
    fn engine_agrees_with_every_source() {
        let Some(gpu) = gpu() else { return };
        let mut verdict = Verdict::new(GPU_LIMIT);
        for case in cases("golden") {
            verdict.absorb(compare_case(&case, gpu_engine(&gpu, &case.convert()).as_mut(), GPU_LIMIT));
        }
        verdict.finish();
    }

    #[test]
    fn engine_agrees_on_the_hard_sizes() {
        let Some(gpu) = gpu() else { return };
        let mut verdict = Verdict::new(GPU_LIMIT);
        for case in cases("hard_sizes") {
            verdict.absorb(compare_hard_sizes(&case, gpu_engine(&gpu, &case.convert()).as_mut(), GPU_LIMIT));
        }
        verdict.finish();
    }

    #[test]
    fn engine_refuses_images_off_the_patch_grid() {
        let Some(gpu) = gpu() else { return };
        check_refusal(gpu_engine(&gpu, &cases("golden")[0].convert()).as_mut());
    }
}
