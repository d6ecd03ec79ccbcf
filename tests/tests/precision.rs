//! What the engine's precisions, thread counts and instruction sets may change in the features, and what not.

mod common;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use common::{Case, Picture, cases, cosine};
use dinov2_core::{Extractor, Features, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, Isa};
use dinov2_weights::quantize::round_to_nearest_int4;
use dinov2_weights::{INT4_GROUPS, Model, Numbers, Quantization, fits_int4, layout, write_quantized};

const PRECISIONS: [CpuPrecision; 3] = [CpuPrecision::F32, CpuPrecision::Half, CpuPrecision::Int8];

/// Least patch cosine to the reference for the golden models: the gates' medians, here for every patch. For int8 their
/// weights are rounded as they come, without calibration.
const GATES: [(CpuPrecision, f64); 2] = [(CpuPrecision::Half, 0.9999), (CpuPrecision::Int8, 0.999)];

fn engine(model: &Model, threads: usize, isa: Isa, precision: CpuPrecision) -> CpuEngine {
    let mut config = CpuConfig::with_threads(NonZeroUsize::new(threads).expect("threads"));
    (config.isa, config.precision) = (isa, precision);
    CpuEngine::new(model, config).unwrap_or_else(|error| panic!("{error}"))
}

fn tokens(engine: &mut CpuEngine, picture: &Picture) -> Vec<f32> {
    let mut features = Features::new();
    engine.extract(picture.view(), &Taps::none(), &mut features).unwrap_or_else(|error| panic!("{error}"));
    features.tokens().to_vec()
}

fn picture_of(model: &Model) -> Picture {
    let side = model.spec().patch_size;
    Picture::pattern(9 * side, 7 * side)
}

/// Against what the source itself computed, on every instruction set of this CPU.
#[test]
fn less_precision_stays_close_to_every_source() {
    for case in cases("golden") {
        let model = case.convert().model;
        for (isa, (precision, gate)) in Isa::available().flat_map(|isa| GATES.map(|gate| (isa, gate))) {
            let mut engine = engine(&model, 2, isa, precision);
            let least = (0..case.number("images")).map(|index| least_cosine(&case, &mut engine, index));
            let least = least.fold(1.0, f64::min);
            println!("{} {precision:?} on {}: least patch cosine {least:.6}", case.name, isa.name());
            assert!(least >= gate, "{} {precision:?} on {}: {least}", case.name, isa.name());
        }
    }
}

/// Least patch cosine of int4 weights to the reference, rounded as they come: the int4 gate's 5th percentile, here for
/// every patch.
const LEAST_INT4_COSINE: f64 = 0.95;

/// `model` with every matrix of whole groups in int4, rounded to nearest; `None` where none is.
fn with_int4(model: &Model, group: usize) -> Option<Model> {
    let matrices = layout::slots(model.spec());
    let fitting = matrices.iter().filter(|slot| slot.matrix && fits_int4(&slot.shape, group));
    let replacements: BTreeMap<_, _> = fitting
        .map(|slot| {
            let weight = model.f32(&slot.name).expect("a tensor of the model");
            let groups = round_to_nearest_int4(&weight, &vec![1.0; slot.shape[1]], group);
            (slot.name.clone(), Numbers::Int4(groups))
        })
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("int4.safetensors");
    let quantization = Quantization {
        weight_limit: 64,
        int4_group: Some(group),
        calibration_images: 0,
        trained: false,
        fidelity: Vec::new(),
    };
    write_quantized(model, &replacements, quantization, &path).expect("a file");
    (!replacements.is_empty()).then(|| Model::open(&path).expect("a model file"))
}

/// int4 files run on the f32 engine and, widened, on the int8 engine of every instruction set; both stay close to the
/// source.
#[test]
fn int4_stays_close_to_every_source() {
    let mut tried = 0;
    for case in cases("golden") {
        let exact = case.convert().model;
        for group in INT4_GROUPS {
            let Some(model) = with_int4(&exact, group) else { continue };
            tried += 1;
            let mut engines = vec![engine(&model, 2, Isa::detect(), CpuPrecision::F32)];
            engines.extend(Isa::available().map(|isa| engine(&model, 2, isa, CpuPrecision::Int8)));
            for engine in &mut engines {
                let least = (0..case.number("images")).map(|index| least_cosine(&case, engine, index));
                let least = least.fold(1.0, f64::min);
                let (precision, isa) = (engine.precision(), engine.isa().name());
                println!(
                    "{} int4 / {group}, {precision:?} on {isa}: least patch cosine {least:.6}",
                    case.name
                );
                assert!(least >= LEAST_INT4_COSINE, "{} {group} {precision:?} on {isa}: {least}", case.name);
                assert!(least < 0.999, "{} {group}: {least} is too true for 4 bits", case.name);
            }
        }
    }
    assert!(tried >= 4, "golden models with groups: {tried}");
}

fn least_cosine(case: &Case, engine: &mut CpuEngine, index: usize) -> f64 {
    let dim = engine.spec().dim;
    let got = tokens(engine, &case.picture(index));
    let want = case.tensor(&format!("image{index}.tokens")).expect("final tokens");
    let rows = got.chunks_exact(dim).zip(want.chunks_exact(dim));
    rows.map(|(got, want)| cosine(got, want)).fold(1.0, f64::min)
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for case in cases("golden") {
        let model = case.convert().model;
        let picture = picture_of(&model);
        for precision in PRECISIONS {
            let with = |threads| tokens(&mut engine(&model, threads, Isa::detect(), precision), &picture);
            let one = with(1);
            for threads in [2, 3, 5, 8] {
                assert!(with(threads) == one, "{} {precision:?}: {threads} threads", case.name);
            }
        }
    }
}

/// Pages that this process has resident.
#[cfg(target_os = "linux")]
fn resident_pages() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("statm");
    text.split_whitespace().nth(1).expect("a field").parse().expect("a number")
}

/// 10,000 frames of changing sizes, the precisions in turn: no more memory at the end than after the first hundreds,
/// and the same features for the same picture.
#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_frames_leave_memory_flat() {
    const FRAMES: usize = 10_000;
    /// 2 MiB: the noise of an allocator that other tests use as well.
    const SLACK_PAGES: usize = 512;
    let model = cases("golden").remove(0).convert().model;
    let side = model.spec().patch_size;
    let mut engines = PRECISIONS.map(|precision| engine(&model, 2, Isa::detect(), precision));
    let pictures: Vec<Picture> =
        (1..13).map(|at| Picture::pattern((1 + at % 4) * side, (1 + at % 3) * side)).collect();
    let mut features = Features::new();
    let mut first: Vec<Option<Vec<f32>>> = vec![None; PRECISIONS.len() * pictures.len()];
    let mut settled = 0;
    for frame in 0..FRAMES {
        let (which, at) = (frame % PRECISIONS.len(), frame / PRECISIONS.len() % pictures.len());
        let extracted = engines[which].extract(pictures[at].view(), &Taps::none(), &mut features);
        extracted.unwrap_or_else(|error| panic!("{error}"));
        let known = first[PRECISIONS.len() * at + which].get_or_insert_with(|| features.tokens().to_vec());
        assert!(known == features.tokens(), "frame {frame}");
        if frame == FRAMES / 20 {
            settled = resident_pages();
        }
    }
    let end = resident_pages();
    assert!(
        end <= settled + SLACK_PAGES,
        "resident pages: {settled} after {}, {end} at the end",
        FRAMES / 20
    );
}
