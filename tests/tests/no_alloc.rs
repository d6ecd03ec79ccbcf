//! After the first frames of a grid the CPU engine allocates nothing, on any thread. A binary of its own: the
//! allocator counts the whole process. Without the usual harness, whose own thread allocates to say that a test takes long.
#![allow(unsafe_code, reason = "a global allocator is unsafe by its signature; this one only counts")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Picture, cases};
use dinov2_core::{Extractor, Facet, Features, HeadOutputs, ImageView, Tap, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine, CpuPrecision, Incremental};
use dinov2_heads::{HeadChoice, HeadInput};
use dinov2_weights::Model;

/// Counts what is allocated while `COUNTING` holds.
struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

fn count() {
    if COUNTING.load(Ordering::SeqCst) {
        ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations while `work` runs.
fn allocations(work: impl FnOnce()) -> usize {
    ALLOCATIONS.store(0, Ordering::SeqCst);
    COUNTING.store(true, Ordering::SeqCst);
    work();
    COUNTING.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::SeqCst)
}

/// Allocations of 20 repetitions of `frame`, after two that may allocate.
fn steady(mut frame: impl FnMut()) -> usize {
    frame();
    frame();
    allocations(|| (0..20).for_each(|_| frame()))
}

/// The picture with `shade` added to its first line, or everywhere if that is much.
fn shaded(picture: &Picture, shade: u8) -> Picture {
    let mut pixels = picture.pixels.clone();
    let count = if shade > 10 { pixels.len() } else { picture.width_px * 3 };
    pixels[..count].iter_mut().for_each(|pixel| *pixel = pixel.wrapping_add(shade));
    Picture { pixels, ..*picture }
}

fn every_kind_of_tap() -> Taps {
    let facets = [Facet::Query, Facet::Key, Facet::Value].map(|facet| Tap::Facet { layer: 1, facet });
    let layers = [false, true].map(|norm| Tap::Layer { layer: 0, norm });
    Taps::new(facets.into_iter().chain(layers).chain([Tap::ClsAttention]))
}

/// The one test, by the words that cargo and nextest start a harness with.
fn main() {
    const NAME: &str = "steady_frames_allocate_nothing";
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| words.iter().any(|word| word == flag);
    let mut filters = words.iter().filter(|word| !word.starts_with('-')).peekable();
    if has("--list") {
        if !has("--ignored") {
            println!("{NAME}: test");
        }
    } else if filters.peek().is_none() || filters.any(|filter| NAME.contains(filter.as_str())) {
        steady_frames_allocate_nothing();
        println!("test {NAME} ... ok");
    }
}

/// Every head that needs no weights, on features of one size.
fn heads_allocate_nothing(model: &Model, features: &Features, image: ImageView<'_>) {
    for choice in ["pca:fit=frozen", "similarity:x=0.5,y=0.5", "norm"] {
        let choice: HeadChoice = choice.parse().expect("a head");
        let mut head = choice.open(model.spec()).expect("a configuration");
        let mut outputs = HeadOutputs::new();
        let got = steady(|| {
            outputs.clear();
            head.run(HeadInput { camera: 0, image, features }, &mut outputs).expect("outputs");
        });
        assert!(outputs.get(choice.name).is_some() && got == 0, "{}: {got} allocations", choice.name);
    }
}

fn steady_frames_allocate_nothing() {
    assert!(allocations(|| drop(std::hint::black_box(vec![0_u8; 64]))) > 0, "the allocator does not count");
    let taps = every_kind_of_tap();
    // An emulated CPU takes minutes for all sources; what allocates does not depend on where weights come from.
    for case in cases("golden").into_iter().step_by(if cfg!(emulated) { 4 } else { 1 }) {
        let converted = case.convert();
        let patch = converted.model.spec().patch_size;
        let (picture, small) =
            (Picture::pattern(7 * patch, 6 * patch), Picture::pattern(3 * patch, 2 * patch));
        for precision in [CpuPrecision::F32, CpuPrecision::Half, CpuPrecision::Int8] {
            let mut config = CpuConfig::with_threads(NonZeroUsize::new(3).expect("3"));
            config.precision = precision;
            let mut engine = CpuEngine::new(&converted.model, config).expect("engine");
            let what = |kind: &str| format!("{}, {precision:?}: allocations in 20 {kind}", case.name);
            let mut features = Features::new();
            let got = steady(|| engine.extract(picture.view(), &taps, &mut features).expect("features"));
            assert_eq!(got, 0, "{}", what("frames"));
            let images = [picture.view(), small.view(), picture.view()];
            let mut batch = vec![Features::new(); 3];
            let got = steady(|| engine.extract_batch(&images, &taps, &mut batch).expect("features"));
            assert_eq!(got, 0, "{}", what("batches"));
            #[cfg(not(emulated))]
            fitted_frames_allocate_nothing(
                CpuEngine::new(&converted.model, config).expect("engine"),
                &case.name,
            );
            heads_allocate_nothing(&converted.model, &features, picture.view());
            // Pictures that differ in a few patches, then in all, and a refresh.
            config.incremental = Incremental::new(0.05, NonZeroUsize::new(7).expect("7"));
            let mut engine = CpuEngine::new(&converted.model, config).expect("engine");
            let clip = [0, 1, 2, 60].map(|shade| shaded(&picture, shade));
            let mut frames = clip.iter().cycle();
            let got = steady(|| {
                let picture = frames.next().expect("endless");
                engine.extract(picture.view(), &taps, &mut features).expect("features");
            });
            assert_eq!(got, 0, "{}", what("incremental frames"));
        }
    }
}

/// Through the facade, which resizes or crops every frame first.
#[cfg(not(emulated))]
fn fitted_frames_allocate_nothing(engine: CpuEngine, name: &str) {
    use dinov2_edge::{ImageExtractor, io::Size};
    let patch = engine.spec().patch_size;
    let frame = Picture::pattern(5 * patch + 3, 4 * patch + 5);
    let mut engine = Some(engine);
    for size in [Size::Short(3 * patch), Size::Native] {
        let mut extractor = ImageExtractor::new(engine.take().expect("given back"), size).expect("a size");
        let mut features = Features::new();
        let got = steady(|| {
            extractor.extract(frame.view(), &Taps::none(), &mut features).expect("features");
        });
        assert_eq!(got, 0, "{name}: allocations in 20 frames fitted to {size}");
        engine = Some(extractor.into_engine());
    }
}
