//! A live page without a camera and without a model: a square moves over a ground, and the patches of each have
//! features of their own.
//!
//!     cargo run -p dinov2-view --example synthetic -- 127.0.0.1:8080 [TOKEN [MODEL]]
//!
//! The square goes round by itself; with lines `ROW COL` on standard input it goes where they say. What viewers
//! ask for is printed.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dinov2_core::{Features, HeadOutputs, ImageView, MlpKind, PatchGrid, PositionConvention, Taps, VitSpec};
use dinov2_heads::{HeadChoice, HeadInput};
use dinov2_io::{LiveStats, Quantiles};
use dinov2_view::{Access, Shown, View, ViewConfig};

const PATCH_PX: usize = 14;
const GRID: PatchGrid = PatchGrid { rows: 16, cols: 21 };
/// Side of the square in patches.
const SIDE: usize = 5;
const DIM: usize = 48;
const FRAME_INTERVAL: Duration = Duration::from_millis(40);

/// Only its width and its tokens matter here.
const SPEC: VitSpec = VitSpec {
    dim: DIM,
    depth: 1,
    heads: 1,
    patch_size: PATCH_PX,
    registers: 0,
    mlp: MlpKind::Gelu,
    mlp_hidden: DIM,
    layer_scale: false,
    norm_eps: 1e-6,
    position_table: GRID,
    position_convention: PositionConvention::ExactSize,
};

/// Where the top left patch of the square is.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    row: usize,
    col: usize,
}

impl Place {
    /// Round and round, one patch at a time.
    fn at_step(step: usize) -> Self {
        let (down, across) = (GRID.rows - SIDE - 2, GRID.cols - SIDE - 2);
        let step = step % (2 * (down + across));
        let (row, col) = match step {
            _ if step < across => (0, step),
            _ if step < across + down => (step - across, across),
            _ if step < 2 * across + down => (down, 2 * across + down - step),
            _ => (2 * (across + down) - step, 0),
        };
        Self { row: row + 1, col: col + 1 }
    }

    fn covers(self, row: usize, col: usize) -> bool {
        (self.row..self.row + SIDE).contains(&row) && (self.col..self.col + SIDE).contains(&col)
    }
}

/// The picture: a blue ground that brightens to the right, an orange square with a dark middle.
fn paint(place: Place, pixels: &mut Vec<u8>) {
    let middle = |place: usize, at: usize| at > place * PATCH_PX + 20 && at < (place + SIDE) * PATCH_PX - 20;
    pixels.clear();
    for y in 0..GRID.rows * PATCH_PX {
        for x in 0..GRID.cols * PATCH_PX {
            pixels.extend(if !place.covers(y / PATCH_PX, x / PATCH_PX) {
                [30, 50 + (x / 6) as u8, 90 + (x / 4) as u8]
            } else if middle(place.row, y) && middle(place.col, x) {
                [120, 50, 20]
            } else {
                [240, 140, 40]
            });
        }
    }
}

/// The features: one direction for the ground, another for the square; both change a little with the
/// place, and a little by chance.
fn describe(place: Place, frame: u64, features: &mut Features) {
    features.prepare(&SPEC, GRID, &Taps::none());
    let mut state = frame.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let patches = features.tokens_mut()[DIM..].chunks_exact_mut(DIM);
    for (index, patch) in patches.enumerate() {
        let square = place.covers(index / GRID.cols, index % GRID.cols);
        for (at, value) in patch.iter_mut().enumerate() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
            let slope = match at % 8 {
                0 | 1 => (index / GRID.cols) as f32 / GRID.rows as f32,
                4 | 5 => (index % GRID.cols) as f32 / GRID.cols as f32,
                _ => 0.0,
            };
            *value = f32::from(u8::from((at % 2 == 0) == square)) + 0.5 * slope + 0.1 * noise;
        }
    }
}

/// Lines `ROW COL`, from a thread that waits for them.
fn orders() -> Receiver<Place> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(0));
            if let (Some(row), Some(col)) = (numbers.next(), numbers.next()) {
                let _ = sender.send(Place { row, col });
            }
        }
    });
    receiver
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into()).parse()?;
    let access = arguments.next().filter(|token| !token.is_empty()).map_or(Access::Local, Access::Token);
    let mut config = ViewConfig::new(address, access)?;
    config.title = "synthetic <b>square</b>".into();
    config.model = arguments.next().unwrap_or_default();
    let view = View::start(config)?;
    println!("listening {}", view.address());

    let (orders, mut ordered) = (orders(), None);
    let (mut pixels, mut features, mut outputs) = (Vec::new(), Features::new(), HeadOutputs::new());
    let mut heads = Vec::new();
    for choice in ["pca:fit=follow", "norm"] {
        let choice: HeadChoice = choice.parse()?;
        heads.push((choice.name, choice.open(&SPEC)?));
    }
    let began = Instant::now();
    for frame in 0.. {
        let started = Instant::now();
        ordered = orders.try_iter().last().or(ordered);
        let place = ordered.unwrap_or_else(|| Place::at_step(frame as usize / 6));
        paint(place, &mut pixels);
        describe(place, frame, &mut features);
        for (name, command) in view.take_commands() {
            println!("asked {name} {command}");
            if let Some((_, head)) = heads.iter_mut().find(|(known, _)| *known == name) {
                head.command(&command)?;
            }
        }
        if view.wants_frame(0) {
            let image = ImageView::new(&pixels, GRID.cols * PATCH_PX, GRID.rows * PATCH_PX)?;
            outputs.clear();
            for (_, head) in &mut heads {
                head.run(HeadInput { camera: 0, image, features: &features }, &mut outputs)?;
            }
            let latency_ms = 20.0 + 8.0 * (frame as f64 / 20.0).sin();
            let capture_ns = std::time::UNIX_EPOCH.elapsed().ok().map(|time| time.as_nanos() as u64);
            let (features, outputs) = (&features, &outputs);
            view.show(&Shown { camera: 0, image, features, outputs, index: frame, capture_ns, latency_ms });
        }
        let latency_ms = Quantiles { p50: 20.0, p95: 27.0, p99: 28.0 };
        let (uptime_s, fps) = (began.elapsed().as_secs_f64(), 25.0);
        let mut stats = LiveStats { uptime_s, frames: frame + 1, fps, latency_ms, ..LiveStats::default() };
        stats.drops.engine_busy = frame / 50;
        stats.temperature_c = Some(51.5);
        view.update(&stats);
        std::thread::sleep(FRAME_INTERVAL.saturating_sub(started.elapsed()));
    }
    Ok(())
}
