//! A view that is fed with frames that tests can compute for themselves, and plain clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dinov2_core::{
    Features, HeadOutputs, ImageView, MlpKind, PatchGrid, PixelRect, PositionConvention, ScoredBox, Taps,
    VitSpec,
};
use dinov2_view::{Access, Shown, View, ViewConfig};

pub(crate) const GRID: PatchGrid = PatchGrid { rows: 4, cols: 6 };
pub(crate) const DIM: usize = 19;
pub(crate) const WIDTH: usize = 84;
pub(crate) const HEIGHT: usize = 56;
pub(crate) const TOKEN: &str = "correct-horse-battery";
/// Longer than any machine takes for anything here.
pub(crate) const LONG: Duration = Duration::from_secs(30);

const SPEC: VitSpec = VitSpec {
    dim: DIM,
    depth: 1,
    heads: 1,
    patch_size: 14,
    registers: 2,
    mlp: MlpKind::Gelu,
    mlp_hidden: DIM,
    layer_scale: false,
    norm_eps: 1e-6,
    position_table: GRID,
    position_convention: PositionConvention::ExactSize,
};

/// Everything of frame `index`.
pub(crate) struct Scene {
    pub(crate) index: u64,
    /// `[HEIGHT, WIDTH, 3]`, smooth, so that JPEG keeps it.
    pub(crate) pixels: Vec<u8>,
    pub(crate) features: Features,
    /// `[rows, cols, 3]`
    pub(crate) colours: Vec<u8>,
}

impl Scene {
    pub(crate) fn new(index: u64) -> Self {
        let shift = (index % 50) as usize;
        let pixel = |x: usize, y: usize| [2 * x + shift, 3 * y + shift, 200 - x - y].map(|value| value as u8);
        let pixels = (0..HEIGHT).flat_map(|y| (0..WIDTH).flat_map(move |x| pixel(x, y))).collect();
        let mut random = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 40
        };
        let mut features = Features::new();
        features.prepare(&SPEC, GRID, &Taps::none());
        features.tokens_mut().fill_with(|| next() as f32 / (1 << 22) as f32 - 1.5);
        let colours = (0..GRID.len() * 3).map(|_| next() as u8).collect();
        Self { index, pixels, features, colours }
    }

    pub(crate) fn capture_ns(&self) -> u64 {
        1_700_000_000_000_000_000 + self.index
    }

    pub(crate) fn latency_ms(&self) -> f64 {
        self.index as f64 / 8.0
    }

    pub(crate) fn show(&self, view: &View) {
        let mut outputs = HeadOutputs::new();
        outputs.colours("pca", GRID).extend_from_slice(&self.colours);
        let half = PatchGrid { rows: GRID.rows, cols: 1 };
        outputs.map("depth", half).extend((0..GRID.rows).map(|row| row as f32 + 0.5));
        outputs.mask("ground.classes", GRID).extend((0..GRID.len()).map(|patch| patch as u8));
        outputs.score("blur", 0.25);
        let rect =
            PixelRect { left_px: 0.0, top_px: 0.0, width_px: WIDTH as f64 / 2.0, height_px: HEIGHT as f64 };
        outputs.boxes("objects").push(ScoredBox { rect, score: 0.75, class: 3 });
        view.show(&Shown {
            camera: 0,
            image: ImageView::new(&self.pixels, WIDTH, HEIGHT).unwrap(),
            features: &self.features,
            outputs: &outputs,
            index: self.index,
            capture_ns: Some(self.capture_ns()),
            latency_ms: self.latency_ms(),
        });
    }

    /// Cosine similarity of each patch with `query`, in f64.
    pub(crate) fn similarities(&self, query: &[f32]) -> Vec<f64> {
        let dot = |x: &[f32], y: &[f32]| -> f64 {
            x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
        };
        let patches = self.features.patches().chunks_exact(DIM);
        patches.map(|patch| dot(patch, query) / (dot(patch, patch) * dot(query, query)).sqrt()).collect()
    }
}

/// A view with a thread that shows it scene after scene.
pub(crate) struct Fed {
    pub(crate) view: Arc<View>,
    /// Scenes shown so far.
    pub(crate) shown: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fed {
    pub(crate) fn new(config: ViewConfig) -> Self {
        let view = Arc::new(View::start(config).unwrap());
        let (shown, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (feeding, count, end) = (Arc::clone(&view), Arc::clone(&shown), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                Scene::new(count.fetch_add(1, Ordering::Relaxed)).show(&feeding);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { view, shown, ended, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.view.address()
    }

    /// Ends the feeding and gives the view back.
    pub(crate) fn into_view(mut self) -> View {
        self.join();
        let view = Arc::clone(&self.view);
        drop(self);
        Arc::into_inner(view).expect("nobody else holds it")
    }

    fn join(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.join();
    }
}

pub(crate) fn config(access: Access) -> ViewConfig {
    let mut config = ViewConfig::new(([127, 0, 0, 1], 0).into(), access).unwrap();
    config.max_fps = 100.0;
    config
}

/// What a server answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends a request; `headers` in whole lines, `Host` where they have none. HTTP/1.0, so that nothing comes in chunks.
pub(crate) fn send(address: SocketAddr, path: &str, headers: &[&str]) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let host = format!("Host: {address}");
    let host = if headers.iter().any(|line| line.starts_with("Host:")) { None } else { Some(host.as_str()) };
    let lines = headers.iter().copied().chain(host).map(|line| format!("{line}\r\n")).collect::<String>();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n{lines}\r\n").as_bytes()).unwrap();
    BufReader::new(stream)
}

/// Reads the status and the header lines, up to the empty one.
pub(crate) fn read_head(reader: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_else(|| panic!("no status line: {line:?}")), read_headers(reader))
}

pub(crate) fn read_headers(reader: &mut impl BufRead) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => return headers,
        }
    }
}

/// Asks and reads the whole answer.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Answer {
    let mut reader = send(address, path, headers);
    let (status, headers) = read_head(&mut reader);
    let mut body = Vec::new();
    reader.read_to_end(&mut body).unwrap();
    Answer { status, headers, body }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
