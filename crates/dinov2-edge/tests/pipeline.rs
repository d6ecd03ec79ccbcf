//! The pipeline between sources and sinks that are made for the test: what is lost, what is not, and how it ends.

use std::sync::{Arc, Mutex, mpsc};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dinov2_edge::heads::HeadChoice;
use dinov2_edge::io::{
    Frame, LiveHandle, LiveStats, Size, Source, SourceError, SourceOptions, TestCamera, open,
};
use dinov2_edge::pipeline::{
    BadInputs, FeatureFrame, HeadCommands, NamedHead, Pipeline, PipelineConfig, PipelineError, Sink,
    SinkFailure, Summary, Wants,
};
use dinov2_edge::{
    Engine, EngineFacts, ExtractError, Extractor, Features, ImageView, PatchGrid, Taps, VitSpec,
};

const PATCH: usize = 14;

/// Takes `work` for a frame or a batch; every value of a patch is the first red of the image.
struct FakeEngine {
    spec: VitSpec,
    work: Duration,
    batches: Arc<Mutex<Vec<usize>>>,
}

impl FakeEngine {
    fn new(work_ms: u64) -> Self {
        let model = dinov2_bundled::bundled_model().unwrap();
        let spec = VitSpec { dim: 4, heads: 1, depth: 1, ..model.spec().clone() };
        Self { spec, work: Duration::from_millis(work_ms), batches: Arc::default() }
    }

    fn fill(&self, image: ImageView<'_>, taps: &Taps, out: &mut Features) {
        let grid = PatchGrid { rows: image.height_px() / PATCH, cols: image.width_px() / PATCH };
        out.prepare(&self.spec, grid, taps);
        let tokens = out.tokens_mut();
        for (index, value) in tokens.iter_mut().enumerate() {
            *value = f32::from(image.pixels()[0]) + (index % 7) as f32;
        }
    }
}

impl Extractor for FakeEngine {
    fn spec(&self) -> &VitSpec {
        &self.spec
    }

    fn extract(&mut self, image: ImageView<'_>, taps: &Taps, out: &mut Features) -> Result<(), ExtractError> {
        self.batches.lock().unwrap().push(1);
        sleep(self.work);
        self.fill(image, taps, out);
        Ok(())
    }

    fn extract_batch(
        &mut self,
        images: &[ImageView<'_>],
        taps: &Taps,
        out: &mut [Features],
    ) -> Result<(), ExtractError> {
        self.batches.lock().unwrap().push(images.len());
        sleep(self.work);
        images.iter().zip(out).for_each(|(image, out)| self.fill(*image, taps, out));
        Ok(())
    }
}

impl Engine for FakeEngine {
    fn facts(&self) -> EngineFacts {
        EngineFacts { backend: "fake", precision: "f32", device: "a test".into(), threads: None }
    }
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// Camera, index at the source, number.
    frames: Vec<(usize, usize, u64)>,
    stats: usize,
    finished: bool,
}

/// Takes `work` per frame and remembers; fails or panics at a frame if told.
struct FakeSink {
    seen: Arc<Mutex<Seen>>,
    work: Duration,
    fail_at: Option<usize>,
    panics: bool,
    wants: Wants,
    /// Outputs that every frame has.
    computed: Vec<&'static str>,
}

impl FakeSink {
    fn new(work_ms: u64) -> Self {
        let work = Duration::from_millis(work_ms);
        Self {
            seen: Arc::default(),
            work,
            fail_at: None,
            panics: false,
            wants: Wants::nothing(),
            computed: vec![],
        }
    }
}

impl Sink for FakeSink {
    fn name(&self) -> &'static str {
        "fake sink"
    }

    fn wants(&self) -> Wants {
        self.wants.clone()
    }

    fn take(&mut self, frame: &FeatureFrame) -> Result<(), SinkFailure> {
        if self.fail_at == Some(self.seen.lock().unwrap().frames.len()) {
            assert!(!self.panics, "told to panic");
            return Err("told to fail".into());
        }
        sleep(self.work);
        assert_eq!(
            frame.features.patches()[0],
            f32::from(frame.fitted[0]) + 4.0,
            "features of another image"
        );
        let computed: Vec<_> = frame.outputs.iter().map(|(name, _)| name).collect();
        assert_eq!(computed, self.computed);
        let seen = (frame.camera, frame.frame.index, frame.number);
        self.seen.lock().unwrap().frames.push(seen);
        Ok(())
    }

    fn take_stats(&mut self, _stats: &LiveStats) -> Result<(), SinkFailure> {
        self.seen.lock().unwrap().stats += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkFailure> {
        self.seen.lock().unwrap().finished = true;
        Ok(())
    }
}

fn config() -> PipelineConfig {
    PipelineConfig {
        size: Size::Exact { width_px: 28, height_px: 28 },
        taps: Taps::none(),
        frames: None,
        duration: None,
        period: None,
        watchdog: None,
        commands: HeadCommands::default(),
        bad_inputs: BadInputs::Stop,
    }
}

/// Every head that there is, where it needs no configuration.
fn heads() -> Vec<NamedHead> {
    let model = dinov2_bundled::bundled_model().unwrap();
    let spec = VitSpec { dim: 4, ..model.spec().clone() };
    let open = |name: &str| NamedHead {
        name: name.into(),
        head: name.parse::<HeadChoice>().unwrap().open(&spec).unwrap(),
    };
    ["pca", "norm"].map(open).into()
}

fn file(words: &str) -> Box<dyn Source> {
    open(&[words], &SourceOptions::default()).unwrap()
}

fn camera(words: &str) -> Box<dyn Source> {
    Box::new(TestCamera::parse(words).unwrap())
}

fn run(
    sources: Vec<Box<dyn Source>>,
    engine: FakeEngine,
    sinks: Vec<FakeSink>,
    config: PipelineConfig,
) -> (Result<Summary, PipelineError>, Vec<Seen>) {
    let seen: Vec<_> = sinks.iter().map(|sink| sink.seen.clone()).collect();
    let sinks = sinks.into_iter().map(|sink| Box::new(sink) as Box<dyn Sink>).collect();
    let outcome = Pipeline::new(sources, Box::new(engine), heads(), sinks, config).run(&mut |_| {});
    (outcome, seen.iter().map(|seen| seen.lock().unwrap().clone()).collect())
}

#[test]
fn of_files_nothing_is_lost_however_slow_the_sinks() {
    let sinks = vec![FakeSink::new(5), FakeSink { wants: Wants::heads(["pca"]), ..FakeSink::new(0) }];
    // One wants colours, so all frames have them; no one wants the other heads.
    let sinks = sinks.into_iter().map(|sink| FakeSink { computed: vec!["pca"], ..sink }).collect();
    let (outcome, seen) = run(vec![file("test:28x28@40")], FakeEngine::new(0), sinks, config());
    let stats = outcome.unwrap().stats;
    assert_eq!((stats.frames, stats.drops), (40, Default::default()));
    for seen in seen {
        assert!(seen.finished);
        assert!(seen.frames.into_iter().eq((0..40).map(|index| (0, index, index as u64))));
    }
}

#[test]
fn a_camera_faster_than_the_engine_loses_the_older_frames() {
    let config = PipelineConfig { duration: Some(Duration::from_millis(1_500)), ..config() };
    let sinks = vec![FakeSink::new(0)];
    let (outcome, seen) = run(vec![camera("test:28x28@200")], FakeEngine::new(40), sinks, config);
    let stats = outcome.unwrap().stats;
    let indices: Vec<usize> = seen[0].frames.iter().map(|frame| frame.1).collect();
    assert!(indices.is_sorted() && indices.len() >= 10, "{indices:?}");
    // About every eighth frame is the newest when the engine is free.
    assert!(stats.drops.engine_busy + stats.losses.stale >= 3 * stats.frames, "{stats:?}");
    // A frame waits at most for the next one, so latency is the engine's and a period, on however slow a machine the
    // engine's `sleep` has more to say than we.
    let most = stats.extract_ms.p50 + 60.0;
    assert!(stats.latency_ms.p50 >= 40.0 && stats.latency_ms.p50 < most, "{stats:?}");
    assert!(stats.fps > 5.0 && stats.fps < 25.5, "{stats:?}");
    assert!(seen[0].finished && seen[0].stats == 1);
}

#[test]
fn a_slow_sink_slows_nobody() {
    let config = PipelineConfig { duration: Some(Duration::from_millis(1_200)), ..config() };
    let sinks = vec![FakeSink::new(300), FakeSink::new(0)];
    let (outcome, seen) = run(vec![camera("test:28x28@50")], FakeEngine::new(1), sinks, config);
    let stats = outcome.unwrap().stats;
    let [slow, quick] = [&seen[0], &seen[1]].map(|seen| seen.frames.len() as u64);
    assert!(slow <= 6 && quick >= 20 && quick <= stats.frames, "{slow} {quick} {stats:?}");
    assert!(stats.drops.sink_busy >= 10, "{stats:?}");
}

#[test]
fn stopping_does_not_wait_for_the_engine_but_for_the_sinks() {
    let sink = FakeSink::new(0);
    let seen = sink.seen.clone();
    let engine = FakeEngine::new(3_000);
    let begun = engine.batches.clone();
    let pipeline = Pipeline::new(
        vec![camera("test:28x28@30")],
        Box::new(engine),
        heads(),
        vec![Box::new(sink)],
        config(),
    );
    let stop = pipeline.stop_handle();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send((pipeline.run(&mut |_| {}), Instant::now())).unwrap());
    while begun.lock().unwrap().is_empty() {
        sleep(Duration::from_millis(5));
    }
    let asked = Instant::now();
    stop.stop();
    let (outcome, ended) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(outcome.unwrap().stopped);
    assert!(ended - asked < Duration::from_secs(2), "{:?}", ended - asked);
    assert!(seen.lock().unwrap().finished);
}

#[test]
fn limits_are_kept() {
    let limited = PipelineConfig { frames: std::num::NonZeroU64::new(7), ..config() };
    let (outcome, seen) =
        run(vec![file("test:28x28@0")], FakeEngine::new(0), vec![FakeSink::new(0)], limited);
    assert_eq!((outcome.unwrap().stats.frames, seen[0].frames.len()), (7, 7));

    let slow = PipelineConfig { period: Some(Duration::from_millis(100)), ..config() };
    let slow = PipelineConfig { frames: std::num::NonZeroU64::new(5), ..slow };
    let start = Instant::now();
    let (outcome, _) = run(vec![camera("test:28x28@100")], FakeEngine::new(0), vec![], slow);
    let stats = outcome.unwrap().stats;
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    assert!(stats.frames == 5 && stats.drops.rate_limit >= 10, "{stats:?}");
}

#[test]
fn several_cameras_share_batches() {
    let engine = FakeEngine::new(50);
    let batches = engine.batches.clone();
    let sources = vec![camera("test:28x28@100"), camera("test:42x28@100"), camera("test:28x28@100")];
    let config = PipelineConfig { frames: std::num::NonZeroU64::new(30), ..config() };
    let (outcome, seen) = run(sources, engine, vec![FakeSink::new(0)], config);
    assert_eq!(outcome.unwrap().stats.frames, 30);
    assert!(batches.lock().unwrap().iter().filter(|size| **size == 3).count() >= 5, "{batches:?}");
    for camera in 0..3 {
        let indices: Vec<usize> =
            seen[0].frames.iter().filter(|frame| frame.0 == camera).map(|frame| frame.1).collect();
        assert!(indices.len() >= 5 && indices.is_sorted(), "{indices:?}");
    }
}

/// Time in which everybody else has ended.
const SLOW_END: Duration = Duration::from_millis(200);

/// Frames, then an error, and a slow end.
struct Broken(Box<dyn Source>);

impl Drop for Broken {
    fn drop(&mut self) {
        sleep(SLOW_END);
    }
}

impl Source for Broken {
    fn next_frame(&mut self, frame: &mut Frame) -> Result<bool, SourceError> {
        if self.0.next_frame(frame)? {
            return Ok(true);
        }
        Err(SourceError::Input { expected: "more".into(), got: "none".into() })
    }

    fn len_hint(&self) -> Option<usize> {
        None
    }

    fn is_video(&self) -> bool {
        true
    }

    fn live(&self) -> Option<LiveHandle> {
        None
    }

    fn take_notes(&mut self) -> Vec<String> {
        self.0.take_notes()
    }
}

#[test]
fn what_came_before_a_broken_input_is_written() {
    let source = Box::new(Broken(file("test:28x28@9")));
    let (outcome, seen) = run(vec![source], FakeEngine::new(2), vec![FakeSink::new(10)], config());
    assert!(matches!(outcome, Err(PipelineError::Source(_))), "{outcome:?}");
    assert!(seen[0].finished && seen[0].frames.len() == 9, "{seen:?}");
}

/// Panics at the first frame, and ends slowly.
struct BrokenEngine(FakeEngine);

impl Drop for BrokenEngine {
    fn drop(&mut self) {
        sleep(SLOW_END);
    }
}

impl Extractor for BrokenEngine {
    fn spec(&self) -> &VitSpec {
        &self.0.spec
    }

    fn extract(&mut self, _: ImageView<'_>, _: &Taps, _: &mut Features) -> Result<(), ExtractError> {
        panic!("told to panic")
    }
}

impl Engine for BrokenEngine {
    fn facts(&self) -> EngineFacts {
        EngineFacts { backend: "fake", precision: "f32", device: "a test".into(), threads: None }
    }
}

#[test]
fn an_engine_that_panics_is_told_though_everybody_ends_before_it() {
    let engine = Box::new(BrokenEngine(FakeEngine::new(0)));
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(FakeSink::new(0))];
    let pipeline = Pipeline::new(vec![file("test:28x28@3")], engine, heads(), sinks, config());
    let outcome = pipeline.run(&mut |_| {});
    assert!(matches!(outcome, Err(PipelineError::Panicked { worker: "engine" })), "{outcome:?}");
}

#[test]
fn a_sink_that_fails_or_panics_ends_the_run_and_the_others_finish() {
    for panics in [false, true] {
        let bad = FakeSink { fail_at: Some(3), panics, ..FakeSink::new(0) };
        let sinks = vec![bad, FakeSink::new(0)];
        let (outcome, seen) = run(vec![file("test:28x28@0")], FakeEngine::new(0), sinks, config());
        let told = outcome.unwrap_err().to_string();
        assert_eq!(told.contains("panicked"), panics, "{told}");
        assert_eq!(told.contains("told to fail"), !panics, "{told}");
        assert!(seen[1].finished && seen[1].frames.len() >= 3, "{seen:?}");
    }
}

#[test]
fn a_hanging_engine_is_noticed() {
    let config = PipelineConfig { watchdog: Some(Duration::from_secs(1)), ..config() };
    let (outcome, seen) =
        run(vec![camera("test:28x28@30")], FakeEngine::new(60_000), vec![FakeSink::new(0)], config);
    assert!(matches!(outcome, Err(PipelineError::Stuck { worker: "engine", .. })), "{outcome:?}");
    assert!(seen[0].finished);
}

#[test]
fn an_image_off_the_grid_is_told() {
    let config = PipelineConfig { size: Size::Native, ..config() };
    let (outcome, _) = run(vec![file("test:13x28@3")], FakeEngine::new(0), vec![FakeSink::new(0)], config);
    assert!(
        matches!(&outcome, Err(PipelineError::Unfit { path, .. }) if path == "test_000000"),
        "{outcome:?}"
    );
}
