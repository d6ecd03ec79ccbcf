//! The GPU engine as a whole: precisions, small devices, overlapping frames, memory, loss of the device.
#![cfg(not(emulated))]

mod common;

use common::gpu::{gpu, gpu_with};
use common::{Picture, cases, cosine, relative_l2};
use dinov2_core::{ExtractError, Extractor, Facet, Features, Tap, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision};
use dinov2_files::chain;
use dinov2_weights::Model;
use dinov2_wgpu::{Gpu, GpuConfig, GpuPrecision, Stage, Tuning, WgpuEngine};

/// Against the CPU engine in f32.
const F32_LIMIT: f64 = 1e-4;

/// Least patch cosine to the reference for the golden models: the gates' medians, here for every patch. For int8 their
/// weights are rounded as they come, without calibration.
const GATES: [(GpuPrecision, f64); 3] =
    [(GpuPrecision::F32, 0.999_999), (GpuPrecision::F16, 0.9999), (GpuPrecision::Int8, 0.999)];

fn engine(gpu: &Gpu, model: &Model, precision: GpuPrecision) -> WgpuEngine {
    WgpuEngine::new(gpu, model, precision).unwrap_or_else(|error| panic!("{error}"))
}

fn cpu_tokens(model: &Model, precision: CpuPrecision, picture: &Picture) -> Vec<f32> {
    let mut config = CpuConfig::default();
    config.precision = precision;
    let mut engine = CpuEngine::new(model, config).unwrap_or_else(|error| panic!("{error}"));
    tokens(&mut engine, picture)
}

fn tokens(engine: &mut dyn Extractor, picture: &Picture) -> Vec<f32> {
    let mut features = Features::new();
    engine.extract(picture.view(), &Taps::none(), &mut features).unwrap_or_else(|error| panic!("{error}"));
    features.tokens().to_vec()
}

fn least_cosine(got: &[f32], want: &[f32], dim: usize) -> f64 {
    let rows = got.chunks_exact(dim).zip(want.chunks_exact(dim));
    rows.map(|(got, want)| cosine(got, want)).fold(1.0, f64::min)
}

fn small_model() -> Model {
    cases("golden").remove(0).convert().model
}

/// A model file with calibrated int8 weights, of the released ViT-S's shape.
fn bundled_model() -> Model {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/vits14-focus-int8.safetensors");
    Model::open(path).unwrap_or_else(|error| panic!("{error}"))
}

fn compare_precisions(gpu: &Gpu) {
    for case in cases("golden") {
        let model = case.convert().model;
        let dim = model.spec().dim;
        for (precision, gate) in GATES {
            if precision == GpuPrecision::F16 && !gpu.facts().f16 {
                assert!(WgpuEngine::new(gpu, &model, precision).is_err(), "f16 without f16");
                continue;
            }
            let mut engine = engine(gpu, &model, precision);
            for index in 0..case.number("images") {
                let want = case.tensor(&format!("image{index}.tokens")).expect("final tokens");
                let least = least_cosine(&tokens(&mut engine, &case.picture(index)), &want, dim);
                println!("{} {precision:?} image{index}: least patch cosine {least:.6}", case.name);
                assert!(least >= gate, "{} {precision:?} image{index}: {least}", case.name);
            }
        }
    }
}

#[test]
fn less_precision_stays_close_to_every_source() {
    let Some(gpu) = gpu() else { return };
    compare_precisions(&gpu);
}

/// No f16, 16 KiB of workgroup memory, 256 invocations, 8 storage buffers, bindings of 128 MiB.
#[test]
fn the_smallest_device_is_enough() {
    let Some(gpu) = gpu_with(&GpuConfig { portable: true, ..GpuConfig::default() }) else { return };
    assert!(!gpu.facts().f16 && !gpu.facts().cooperative_matrix);
    compare_precisions(&gpu);
}

#[test]
fn the_bundled_model_equals_the_cpu_engine() {
    let Some(gpu) = gpu() else { return };
    let model = bundled_model();
    let (dim, side) = (model.spec().dim, model.spec().patch_size);
    let picture = Picture::pattern(5 * side, 4 * side);
    let want = cpu_tokens(&model, CpuPrecision::F32, &picture);
    let distance = relative_l2(&tokens(&mut engine(&gpu, &model, GpuPrecision::F32), &picture), &want);
    println!("f32: relative L2 {distance:.2e}");
    assert!(distance <= F32_LIMIT, "{distance}");
    if gpu.facts().f16 {
        let least = least_cosine(&tokens(&mut engine(&gpu, &model, GpuPrecision::F16), &picture), &want, dim);
        println!("f16: least patch cosine {least:.6}");
        assert!(least >= 0.999, "{least}");
    }
    // The same integers are multiplied; the rounding of activations differs where they lie between two steps.
    let loss = |got: &[f32]| {
        let rows = got.chunks_exact(dim).zip(want.chunks_exact(dim));
        rows.map(|(got, want)| 1.0 - cosine(got, want)).sum::<f64>() / (want.len() / dim) as f64
    };
    let on_cpu = loss(&cpu_tokens(&model, CpuPrecision::Int8, &picture));
    let on_gpu = loss(&tokens(&mut engine(&gpu, &model, GpuPrecision::Int8), &picture));
    println!("int8: mean loss of cosine {on_gpu:.2e}, on the CPU {on_cpu:.2e}");
    assert!(on_gpu <= 1.5 * on_cpu, "{on_gpu} on the GPU, {on_cpu} on the CPU");
}

#[test]
fn frames_in_flight_come_back_in_order() {
    let Some(gpu) = gpu() else { return };
    let model = small_model();
    let side = model.spec().patch_size;
    let mut engine = engine(&gpu, &model, GpuPrecision::F32);
    let taps = Taps::new([Tap::Facet { layer: 1, facet: Facet::Key }, Tap::ClsAttention]);
    let pictures: Vec<Picture> = (1..8).map(|at| Picture::pattern((1 + at % 3) * side, at * side)).collect();
    let views: Vec<_> = pictures.iter().map(Picture::view).collect();
    let mut together = vec![Features::new(); pictures.len()];
    engine.extract_batch(&views, &taps, &mut together).unwrap_or_else(|error| panic!("{error}"));
    for (view, together) in views.iter().zip(&together) {
        let mut alone = Features::new();
        engine.extract(*view, &taps, &mut alone).unwrap_or_else(|error| panic!("{error}"));
        assert!(alone.grid() == together.grid() && alone.tokens() == together.tokens());
        assert!(alone.taps().eq(together.taps()));
    }
    // A wrong image ends a batch, and nothing of it gets in the way of the next.
    let wrong = Picture::pattern(side, side + 1);
    let with_wrong = [views[0], views[1], wrong.view(), views[3]];
    assert!(matches!(
        engine.extract_batch(&with_wrong, &taps, &mut together.clone()[..4]),
        Err(ExtractError::Grid(_))
    ));
    let mut again = vec![Features::new(); 3];
    engine.extract_batch(&views[..3], &taps, &mut again).unwrap();
    assert!(again.iter().zip(&together).all(|(again, first)| again.tokens() == first.tokens()));

    engine.submit(views[0], &taps).unwrap();
    engine.submit(views[1], &taps).unwrap();
    assert!(matches!(engine.submit(views[2], &taps), Err(ExtractError::Misuse(_))), "three frames in flight");
    // A frame that was submitted before does not get in the way of a later one.
    let mut features = Features::new();
    engine.receive(&mut features).unwrap();
    engine.extract(views[4], &taps, &mut features).unwrap();
    assert!(features.tokens() == together[4].tokens() && engine.in_flight() == 0);
    assert!(engine.receive(&mut features).is_err(), "nothing in flight");
}

#[test]
fn engines_share_a_process() {
    let (Some(first), Some(second)) = (gpu(), gpu()) else { return };
    let model = small_model();
    let picture = Picture::pattern(6 * model.spec().patch_size, 5 * model.spec().patch_size);
    let want = tokens(&mut engine(&first, &model, GpuPrecision::F32), &picture);
    let engines = [&first, &first, &second].map(|gpu| engine(gpu, &model, GpuPrecision::F32));
    std::thread::scope(|scope| {
        for mut engine in engines {
            let (picture, want) = (&picture, &want);
            scope.spawn(move || (0..100).for_each(|_| assert!(tokens(&mut engine, picture) == *want)));
        }
    });
}

/// 1,000 frames of changing sizes: no more device memory than after the largest, the same features for the same picture.
#[test]
fn a_thousand_frames_leave_memory_flat() {
    const FRAMES: usize = 1000;
    let Some(gpu) = gpu() else { return };
    let model = small_model();
    let side = model.spec().patch_size;
    let mut engine = engine(&gpu, &model, GpuPrecision::F32);
    // More grids than plans are kept.
    let pictures: Vec<Picture> =
        (0..20).map(|at| Picture::pattern((1 + at % 4) * side, (1 + at % 5) * side)).collect();
    let mut first: Vec<Option<Vec<f32>>> = vec![None; pictures.len()];
    let mut allocated = Vec::new();
    for frame in 0..FRAMES {
        let at = frame * 7 % pictures.len();
        let got = tokens(&mut engine, &pictures[at]);
        assert!(*first[at].get_or_insert_with(|| got.clone()) == got, "frame {frame}");
        allocated.push(gpu.allocated_bytes().expect("an allocator that tells"));
    }
    // Which plans are kept changes with every frame, so it is the most within many that must not grow.
    let most = |frames: std::ops::Range<usize>| allocated[frames].iter().copied().max();
    let (early, late) = (most(100..300), most(800..FRAMES));
    println!("most device memory in frames 100 to 300: {early:?} bytes, in the last 200: {late:?}");
    assert!(late <= early, "{early:?}, later {late:?}");
}

#[test]
fn a_lost_device_is_told_and_a_new_one_works() {
    let Some(gpu) = gpu() else { return };
    let model = small_model();
    let picture = Picture::pattern(4 * model.spec().patch_size, 3 * model.spec().patch_size);
    let mut lost = engine(&gpu, &model, GpuPrecision::F32);
    let want = tokens(&mut lost, &picture);
    lost.submit(picture.view(), &Taps::none()).unwrap();
    gpu.shut_down();
    let mut features = Features::new();
    // The frame in flight may still come or not; the next one cannot.
    let _ = lost.receive(&mut features);
    for _ in 0..3 {
        let error = lost.extract(picture.view(), &Taps::none(), &mut features).expect_err("no device");
        assert!(chain(&error).contains("device was lost"), "{error}");
    }
    assert!(WgpuEngine::new(&gpu, &model, GpuPrecision::F32).is_err());
    let Some(gpu) = common::gpu::gpu() else { panic!("there was one") };
    assert!(tokens(&mut engine(&gpu, &model, GpuPrecision::F32), &picture) == want);
}

#[test]
fn frames_beyond_the_device_are_refused_and_small_ones_still_run() {
    let Some(gpu) = gpu_with(&GpuConfig { portable: true, ..GpuConfig::default() }) else { return };
    let model = bundled_model();
    let side = model.spec().patch_size;
    let mut engine = engine(&gpu, &model, GpuPrecision::F32);
    // 22,500 tokens x 1536 x 4 bytes inside the MLP: more than a binding of 128 MiB.
    let picture = Picture::pattern(150 * side, 150 * side);
    let error = engine.extract(picture.view(), &Taps::none(), &mut Features::new()).expect_err("too large");
    let message = chain(&error);
    assert!(message.contains("rows takes") && message.contains("holds at most 134217728"), "{message}");
    let small = Picture::pattern(side, side);
    let want = cpu_tokens(&model, CpuPrecision::F32, &small);
    assert!(relative_l2(&tokens(&mut engine, &small), &want) <= F32_LIMIT);
}

#[test]
fn stages_are_timed() {
    let Some(gpu) = gpu() else { return };
    let model = small_model();
    let picture = Picture::pattern(8 * model.spec().patch_size, 8 * model.spec().patch_size);
    let mut engine = engine(&gpu, &model, GpuPrecision::F32);
    let plain = tokens(&mut engine, &picture);
    assert!(engine.stage_times().is_none());
    engine.set_profiling(true);
    assert!(tokens(&mut engine, &picture) == plain, "timing changes features");
    let times = engine.stage_times().expect("a device with timestamps");
    for stage in [Stage::PatchEmbed, Stage::LayerNorm, Stage::Qkv, Stage::Attention, Stage::MlpOut] {
        assert!(!times.get(stage).is_zero(), "{stage:?}");
    }
    assert!(times.get(Stage::Quantize).is_zero() && times.get(Stage::Taps).is_zero());
    engine.set_profiling(false);
    assert!(tokens(&mut engine, &picture) == plain && engine.stage_times().is_none());
}

/// Shaders run without checks of their indices; with them they compute the same, so no index was out of bounds.
#[test]
fn no_index_is_out_of_bounds() {
    let Some(gpu) = gpu() else { return };
    let Some(checked) = gpu_with(&GpuConfig { checked: true, ..GpuConfig::default() }) else { return };
    // Compiling checked shaders takes a software driver seconds; the first, fifth and ninth case differ in everything.
    for case in cases("golden").iter().step_by(4) {
        let model = case.convert().model;
        for (precision, _) in GATES {
            let mut engines = [&gpu, &checked].map(|gpu| engine(gpu, &model, precision));
            for index in 0..2 {
                let [plain, checked] = engines.each_mut().map(|engine| tokens(engine, &case.picture(index)));
                assert!(plain == checked, "{} {precision:?} image{index}", case.name);
            }
        }
    }
}

#[test]
fn measured_choices_are_kept_and_change_little() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tuned = GpuConfig { cache: Some(folder.path().into()), tuning: Tuning::On, ..GpuConfig::default() };
    let (Some(plain), Some(first)) = (gpu(), gpu_with(&tuned)) else { return };
    let model = small_model();
    let picture = Picture::pattern(5 * model.spec().patch_size, 4 * model.spec().patch_size);
    for (precision, gate) in GATES {
        let want = tokens(&mut engine(&plain, &model, precision), &picture);
        let got = tokens(&mut engine(&first, &model, precision), &picture);
        let least = least_cosine(&got, &want, model.spec().dim);
        assert!(least >= gate, "{precision:?}: {least}");
    }
    let products = first.products();
    // Patch embedding and four matrices, the patch embedding alike in every precision.
    assert_eq!(products.len(), 1 + 3 * 4, "{products:?}");
    let Some(second) = gpu_with(&tuned) else { panic!("there was one") };
    assert_eq!(second.products(), products);
    let mut engine = engine(&second, &model, GpuPrecision::F32);
    tokens(&mut engine, &picture);
    assert_eq!(second.products(), products);
}
