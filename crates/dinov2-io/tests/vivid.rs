//! The camera source against `vivid`, the kernel's own virtual camera: the device that `tests/camera-vm` boots a
//! kernel for. Elsewhere every test says that it is skipped; with `DINOV2_TEST_CAMERA=1` the device must be there.
//!
//! Faults are injected by `v4l2-ctl`, which also is what settings are compared with.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use dinov2_files::chain;
use dinov2_io::{
    Camera, CameraConfig, CameraFormat, CameraRates, ControlKind, Frame, Losses, Source, list_cameras,
};

const DEVICE: &str = "/dev/video0";
/// A size at which an emulated processor keeps the rate.
const SIZE: (usize, usize) = (320, 180);
/// Longer than any outage here should last.
const PATIENCE: Duration = Duration::from_secs(60);

/// The device, for one test at a time and as it was when it was plugged in. None, and a line, where there is none.
fn vivid(test: &str) -> Option<MutexGuard<'static, ()>> {
    static DEVICE_IN_USE: Mutex<()> = Mutex::new(());
    let guard = DEVICE_IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = fs::read_to_string("/sys/class/video4linux/video0/name").unwrap_or_default();
    if !name.starts_with("vivid") {
        assert!(std::env::var_os("DINOV2_TEST_CAMERA").is_none(), "no vivid device at {DEVICE}: {name:?}");
        println!("SKIPPED: {test}: no vivid device at {DEVICE}");
        return None;
    }
    for setting in [
        "--set-input=0",
        "--set-ctrl=percentage_of_dropped_buffers=0,wrap_sequence_number=0,test_pattern=0,osd_text_mode=2",
        "--set-ctrl=colorspace=2,y_cbcr_encoding=0,quantization=0,gain=0,brightness=128,vertical_movement=3",
    ] {
        v4l2_ctl(setting);
    }
    Some(guard)
}

fn v4l2_ctl(argument: &str) -> String {
    let output = Command::new("v4l2-ctl").args(["-d", DEVICE, argument]).output().expect("v4l2-ctl");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "v4l2-ctl {argument}: {said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

fn inject(fault: &str) {
    v4l2_ctl(&format!("--set-ctrl={fault}=1"));
}

fn config() -> CameraConfig {
    CameraConfig { size: Some(SIZE), fps: Some(30.0), ..CameraConfig::new(DEVICE) }
}

fn open(config: CameraConfig) -> Camera {
    Camera::open(config).unwrap_or_else(|error| panic!("{error}"))
}

fn losses(camera: &Camera) -> Losses {
    camera.live().expect("a live source").losses()
}

fn take(camera: &mut Camera, frame: &mut Frame, count: usize) {
    for _ in 0..count {
        assert!(camera.next_frame(frame).unwrap());
    }
}

/// Takes frames until the losses are as expected.
fn take_until(camera: &mut Camera, what: &str, expected: impl Fn(Losses) -> bool) {
    let (start, mut frame) = (Instant::now(), Frame::new());
    while !expected(losses(camera)) {
        assert!(start.elapsed() < PATIENCE, "{what}: {:?} {:?}", losses(camera), camera.take_notes());
        take(camera, &mut frame, 1);
    }
    // The end of an outage is told with the first frame after it.
    take(camera, &mut frame, 1);
}

#[test]
fn enumerates_what_v4l2_ctl_enumerates() {
    let Some(_guard) = vivid("enumeration") else { return };
    let cameras = list_cameras();
    let camera = cameras.iter().find(|camera| camera.path == Path::new(DEVICE)).expect("vivid is listed");
    assert_eq!((camera.name.as_str(), camera.driver.as_str()), ("vivid", "vivid"));
    assert_eq!(camera.bus, "platform:vivid-000");
    assert_eq!(camera.problem, None);
    // It prints codes with their spaces.
    let formats = v4l2_ctl("--list-formats-ext").replace(" -BE", "-BE").replace(" ' (", "' (");
    for pixels in &camera.formats {
        assert!(formats.contains(&format!("'{}' ({}", pixels.code, pixels.description)), "{pixels:?}");
        for size in &pixels.sizes {
            assert!(formats.contains(&format!("{}x{}", size.smallest.0, size.smallest.1)), "{size:?}");
        }
    }
    assert_eq!(formats.matches("]: '").count(), camera.formats.len());
    assert_eq!(
        formats.matches("Size: ").count(),
        camera.formats.iter().map(|pixels| pixels.sizes.len()).sum::<usize>()
    );
    let rates: usize = camera
        .formats
        .iter()
        .flat_map(|pixels| &pixels.sizes)
        .map(|size| match &size.rates {
            CameraRates::Fps(rates) => rates.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(formats.matches("Interval: ").count(), rates);
    let listed = v4l2_ctl("--list-ctrls-menus");
    for control in &camera.controls {
        let line = listed.lines().find(|line| line.trim_start().starts_with(&format!("{} 0x", control.name)));
        let line = line.unwrap_or_else(|| panic!("{control:?}"));
        if control.kind == ControlKind::Integer {
            assert!(line.contains(&format!("max={}", control.max)), "{control:?}: {line}");
        }
        // Volatile ones change on their own; bit masks are printed in hexadecimal.
        let steady = control.kind != ControlKind::Bitmask && !line.contains("volatile");
        if let Some(value) = control.value.filter(|_| steady) {
            assert!(line.contains(&format!("value={value}")), "{control:?}: {line}");
        }
        for (value, name) in &control.menu {
            assert!(listed.contains(&format!("{value}: {name}")), "{control:?}");
        }
    }
    let kinds = ["(int)", "(bool)", "(menu)", "(intmenu)", "(button)", "(bitmask)", "(int64)"];
    let countable = listed.lines().filter(|line| kinds.iter().any(|kind| line.contains(kind))).count();
    assert_eq!(camera.controls.len(), countable);
}

/// The eight bars at full saturation: ITU-R BT.471, 100/0/100/0.
const BARS: [[u8; 3]; 8] = [
    [255, 255, 255],
    [255, 255, 0],
    [0, 255, 255],
    [0, 255, 0],
    [255, 0, 255],
    [255, 0, 0],
    [0, 0, 255],
    [0, 0, 0],
];

/// Worst difference from the bars, of the middle of each.
fn from_bars(frame: &Frame, bars: [[u8; 3]; 8]) -> (u8, String) {
    let middle = frame.height_px / 2 * frame.width_px;
    let at = |bar: usize| (middle + (2 * bar + 1) * frame.width_px / 16) * 3;
    let got: [[u8; 3]; 8] = std::array::from_fn(|bar| std::array::from_fn(|c| frame.pixels[at(bar) + c]));
    let differences = got.iter().flatten().zip(bars.iter().flatten()).map(|(got, want)| got.abs_diff(*want));
    (differences.max().unwrap(), format!("got {got:?}, expected {bars:?}"))
}

#[test]
fn every_format_shows_the_colour_bars() {
    let Some(_guard) = vivid("formats") else { return };
    let cameras = list_cameras();
    let offered: HashSet<CameraFormat> =
        cameras[0].formats.iter().filter_map(|pixels| pixels.format).collect();
    for format in [
        CameraFormat::Yuyv,
        CameraFormat::Uyvy,
        CameraFormat::Nv12,
        CameraFormat::Grey,
        CameraFormat::Rgb24,
        CameraFormat::Bgr24,
    ] {
        assert!(offered.contains(&format), "{format}");
    }
    let mut frame = Frame::new();
    for format in offered {
        for size in [SIZE, (640, 480)] {
            let controls = vec![("test_pattern".to_string(), 1)];
            let mut camera =
                open(CameraConfig { size: Some(size), format: Some(format), controls, ..config() });
            take(&mut camera, &mut frame, 1);
            assert_eq!((frame.width_px, frame.height_px), size, "{}", camera.describe());
            // vivid's grey is the luma of ITU-R BT.709 from 0 to 255.
            let luma = |[red, green, blue]: [u8; 3]| {
                let y = 0.2126 * f64::from(red) + 0.7152 * f64::from(green) + 0.0722 * f64::from(blue);
                [y.round() as u8; 3]
            };
            let bars = if format == CameraFormat::Grey { BARS.map(luma) } else { BARS };
            let (worst, told) = from_bars(&frame, bars);
            println!("{}: worst {worst}", camera.describe());
            assert!(worst <= 3, "{}: {told}", camera.describe());
        }
    }
}

#[test]
fn colour_spaces_are_honoured() {
    let Some(_guard) = vivid("colour spaces") else { return };
    let mut frame = Frame::new();
    // vivid's menus: Rec. 709 is colour space 1 and encoding 2, full range is quantization 1, limited 2.
    for settings in [
        "colorspace=1,y_cbcr_encoding=0,quantization=0",
        "colorspace=2,y_cbcr_encoding=2,quantization=0",
        "colorspace=2,y_cbcr_encoding=1,quantization=1",
        "colorspace=2,y_cbcr_encoding=2,quantization=1",
        "colorspace=4,y_cbcr_encoding=0,quantization=0",
        "colorspace=2,y_cbcr_encoding=0,quantization=2",
    ] {
        v4l2_ctl(&format!("--set-ctrl={settings},test_pattern=1"));
        for format in [CameraFormat::Yuyv, CameraFormat::Nv12, CameraFormat::Rgb24] {
            let mut camera = open(CameraConfig { format: Some(format), ..config() });
            take(&mut camera, &mut frame, 1);
            let (worst, told) = from_bars(&frame, BARS);
            println!("{settings} {format}: worst {worst}");
            assert!(worst <= 4, "{settings} {format}: {told}");
        }
    }
}

#[test]
fn frames_come_in_time_with_the_time_they_were_taken_at() {
    let Some(_guard) = vivid("timing") else { return };
    for fps in [10.0, 30.0] {
        let mut camera = open(CameraConfig { fps: Some(fps), ..config() });
        assert_eq!(camera.describe(), format!("vivid: 320x180 YUYV {fps} fps"));
        assert!(camera.is_video());
        let mut frame = Frame::new();
        take(&mut camera, &mut frame, 5);
        assert_eq!((frame.name.as_str(), frame.index), ("video0_000004", 4));
        let (first, before) = (frame.captured.unwrap(), losses(&camera));
        let mut last = first;
        let count = 20;
        for _ in 0..count {
            take(&mut camera, &mut frame, 1);
            let (now, unix) = (Instant::now(), SystemTime::now());
            let captured = frame.captured.unwrap();
            assert!(captured > last && captured <= now);
            let age = now - captured;
            assert!(age < Duration::from_secs(1), "{age:?}");
            let unix_ns = unix.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
            let unix_age = Duration::from_nanos((unix_ns - u128::from(frame.capture_ns.unwrap())) as u64);
            assert!(unix_age.abs_diff(age) < Duration::from_millis(100), "{unix_age:?} {age:?}");
            last = captured;
        }
        let losses = losses(&camera);
        let lost = losses.missed - before.missed + losses.stale - before.stale;
        let period = (last - first).as_secs_f64() / (count as f64 + lost as f64);
        println!("{fps} fps: a frame every {:.2} ms, lost {lost}", period * 1e3);
        assert!((period * fps - 1.0).abs() < 0.05, "{period}, lost {lost}");
        assert_eq!(losses.reopened, 0);
    }
}

#[test]
fn a_slow_reader_gets_frames_of_now() {
    let Some(_guard) = vivid("newest") else { return };
    let mut camera = open(config());
    let mut frame = Frame::new();
    take(&mut camera, &mut frame, 3);
    let before = losses(&camera);
    thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    take(&mut camera, &mut frame, 1);
    // Without discarding, the four buffers would hold frames of almost a second ago.
    let captured = frame.captured.unwrap();
    assert!(captured + Duration::from_millis(300) > asked, "{:?}", asked - captured);
    let losses = losses(&camera);
    assert!(losses.stale >= before.stale + 3, "{losses:?}");
    assert!(losses.missed >= before.missed + 10, "{losses:?}");
}

#[test]
fn sizes_and_rates_are_the_nearest() {
    let Some(_guard) = vivid("negotiation") else { return };
    let wished = |size, fps| CameraConfig { size, fps, ..CameraConfig::new(DEVICE) };
    for (config, expected) in [
        (wished(None, None), "vivid: 640x480 YUYV 25 fps"),
        (wished(Some((700, 350)), Some(14.0)), "vivid: 640x360 YUYV 15 fps"),
        (wished(Some((9999, 9999)), Some(1000.0)), "vivid: 3840x2160 YUYV 2 fps"),
        (wished(Some((1, 1)), Some(60.0)), "vivid: 320x180 YUYV 60 fps"),
    ] {
        assert_eq!(open(config).describe(), expected);
    }
}

#[test]
fn controls_are_set_and_wrong_ones_told() {
    let Some(_guard) = vivid("controls") else { return };
    let with = |name: &str, value| CameraConfig { controls: vec![(name.into(), value)], ..config() };
    let camera = open(with("brightness", 200));
    assert!(v4l2_ctl("--get-ctrl=brightness").contains("200"));
    let listed = list_cameras();
    let brightness = listed[0].controls.iter().find(|control| control.name == "brightness").unwrap();
    assert_eq!(
        (brightness.value, brightness.min, brightness.max, brightness.default),
        (Some(200), 0, 255, 128)
    );
    drop(camera);
    let wrong = |config| chain(&Camera::open(config).unwrap_err());
    let told = wrong(with("brightness", 256));
    assert!(told.contains("control brightness: expected 0..=255, got 256"), "{told}");
    let told = wrong(with("brigthness", 1));
    assert!(told.contains("expected one of brightness, contrast"), "{told}");
    let told = wrong(with("test_pattern", 99));
    assert!(told.contains("1 (100% Colorbar)") && told.contains("got 99"), "{told}");
}

#[test]
fn refusals_say_what_to_do() {
    let Some(_guard) = vivid("refusals") else { return };
    let wrong = |config| chain(&Camera::open(config).unwrap_err());
    let told = wrong(CameraConfig::new("/dev/video99"));
    assert!(
        told.contains("expected a camera, got none (there is /dev/video0 (vivid)): /dev/video99"),
        "{told}"
    );
    let told = wrong(CameraConfig::new("/dev/null"));
    assert!(told.contains("captures no video"), "{told}");
    let told = wrong(CameraConfig { format: Some(CameraFormat::Mjpeg), ..config() });
    assert!(
        told.contains("expected one of") && told.contains("YUYV") && told.contains("got MJPEG"),
        "{told}"
    );
    let mut other = Command::new("v4l2-ctl")
        .args(["-d", DEVICE, "--stream-mmap", "--stream-count=100000"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let id = other.id();
    let start = Instant::now();
    let told = loop {
        // Until the other program streams, the device is free.
        match Camera::open(config()) {
            Err(error) => break chain(&error),
            Ok(camera) => drop(camera),
        }
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(50));
    };
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(told.contains(&format!("in use by v4l2-ctl (process {id})")), "{told}");
}

#[test]
fn faulty_and_dropped_frames_are_counted() {
    let Some(_guard) = vivid("counting") else { return };
    let mut camera = open(config());
    let mut frame = Frame::new();
    take(&mut camera, &mut frame, 3);
    let corrupt = losses(&camera).corrupt;
    inject("inject_v4l2_buf_flag_error");
    take_until(&mut camera, "buffer error", |losses| losses.corrupt == corrupt + 1);
    let missed = losses(&camera).missed;
    v4l2_ctl("--set-ctrl=percentage_of_dropped_buffers=50");
    take_until(&mut camera, "dropped", |losses| losses.missed >= missed + 10);
    assert_eq!(losses(&camera).reopened, 0, "{:?}", camera.take_notes());
    assert!(camera.take_notes().is_empty());
}

#[test]
fn the_frame_counter_wraps() {
    let Some(_guard) = vivid("wrap") else { return };
    // vivid then starts to count 128 frames before the wrap.
    v4l2_ctl("--set-ctrl=wrap_sequence_number=1");
    let mut camera = open(CameraConfig { fps: Some(60.0), ..config() });
    let mut frame = Frame::new();
    let taken = |camera: &Camera, frame: &Frame| {
        let losses = losses(camera);
        frame.index as u64 + losses.missed + losses.stale
    };
    loop {
        take(&mut camera, &mut frame, 1);
        if taken(&camera, &frame) > 200 {
            break;
        }
    }
    let losses = losses(&camera);
    assert!(losses.missed < 200 && losses.reopened == 0, "{losses:?}");
}

/// Takes frames through an outage: one note at its beginning, which is returned, and one at its end.
fn survives(camera: &mut Camera, what: &str) -> String {
    let reopened = losses(camera).reopened;
    let start = Instant::now();
    take_until(camera, what, |losses| losses.reopened > reopened);
    let notes = camera.take_notes();
    println!("{what}: {:.1} s: {notes:?}", start.elapsed().as_secs_f64());
    assert_eq!(notes.len(), 2, "{what}: {notes:?}");
    assert!(notes[0].contains("opened again"), "{what}: {notes:?}");
    assert!(notes[1].contains("back after") && notes[1].ends_with(camera.describe()), "{what}: {notes:?}");
    assert_eq!(losses(camera).reopened, reopened + 1, "{what}");
    assert!(camera.live().unwrap().is_up());
    notes[0].clone()
}

#[test]
fn errors_of_the_driver_are_survived() {
    let Some(_guard) = vivid("driver errors") else { return };
    let controls = vec![("brightness".to_string(), 77)];
    let mut camera = open(CameraConfig { controls, ..config() });
    let mut frame = Frame::new();
    take(&mut camera, &mut frame, 3);
    v4l2_ctl("--set-ctrl=brightness=10");
    inject("inject_fatal_streaming_error");
    survives(&mut camera, "fatal streaming error");
    // Controls are as they were asked for, again.
    assert!(v4l2_ctl("--get-ctrl=brightness").contains("77"));
    inject("inject_vidioc_qbuf_error");
    survives(&mut camera, "qbuf error");
    inject("disconnect");
    survives(&mut camera, "disconnect");
    // The first attempt to start again fails too: still one outage.
    for again in ["inject_vidioc_streamon_error", "inject_vidioc_reqbufs_error"] {
        inject(again);
        inject("inject_fatal_streaming_error");
        survives(&mut camera, again);
    }
    take(&mut camera, &mut frame, 10);
    assert!(camera.take_notes().is_empty());
}

#[test]
fn a_stall_is_survived() {
    let Some(_guard) = vivid("stall") else { return };
    let mut camera = open(config());
    let mut frame = Frame::new();
    take(&mut camera, &mut frame, 3);
    let monitor = camera.live().unwrap();
    v4l2_ctl("--set-ctrl=percentage_of_dropped_buffers=100");
    let waiting = thread::spawn(move || {
        survives(&mut camera, "stall");
        camera
    });
    // Others see the outage while it lasts.
    let start = Instant::now();
    while monitor.is_up() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(start.elapsed() >= Duration::from_secs(1));
    v4l2_ctl("--set-ctrl=percentage_of_dropped_buffers=0");
    let camera = waiting.join().expect("the stall is survived");
    assert_eq!(losses(&camera).reopened, 1);
}

fn driver(file: &str) {
    let path = format!("/sys/bus/platform/drivers/vivid/{file}");
    fs::write(&path, "vivid.0").unwrap_or_else(|error| panic!("{path}: {error}"));
}

#[test]
fn unplugging_and_plugging_in_again_is_survived() {
    let Some(_guard) = vivid("unplug") else { return };
    // The second time somebody keeps the old node open, so that the camera comes back under another name.
    for held in [false, true] {
        let mut camera = open(config());
        let mut frame = Frame::new();
        take(&mut camera, &mut frame, 3);
        let monitor = camera.live().unwrap();
        let waiting = thread::spawn(move || {
            survives(&mut camera, "unplugged");
            camera
        });
        let holder = held.then(|| fs::File::open(DEVICE).unwrap());
        driver("unbind");
        let start = Instant::now();
        while monitor.is_up() {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_secs(3));
        assert!(!monitor.is_up());
        driver("bind");
        let camera = waiting.join().expect("unplugging is survived");
        assert_eq!(camera.describe(), "vivid: 320x180 YUYV 30 fps");
        assert_eq!(Path::new(DEVICE).exists(), !held);
        drop((camera, holder));
        if held {
            driver("unbind");
            driver("bind");
        }
        assert!(Path::new(DEVICE).exists());
    }
}

#[test]
fn a_changed_signal_is_survived() {
    let Some(_guard) = vivid("signal") else { return };
    // What the camera would show is taken from vivid's output, if it has one: another signal.
    if !v4l2_ctl("--list-ctrls").contains("loop_video") {
        println!("SKIPPED: signal: vivid without an output (node_types=0x101 gives it one)");
        return;
    }
    v4l2_ctl("--set-input=3");
    let mut camera = open(CameraConfig { fps: None, ..config() });
    let mut frame = Frame::new();
    take(&mut camera, &mut frame, 3);
    for looped in ["loop_video=1", "loop_video=0"] {
        v4l2_ctl(&format!("--set-ctrl={looped}"));
        let told = survives(&mut camera, looped);
        assert!(told.contains("the signal changed"), "{told}");
    }
    drop(camera);
    v4l2_ctl("--set-input=0");
}

#[test]
fn stops_at_once_whatever_it_waits_for() {
    let Some(_guard) = vivid("stop") else { return };
    // While it waits for a frame that does not come, and while it waits to open the device again.
    for unplugged in [false, true] {
        let mut camera = open(config());
        let mut frame = Frame::new();
        take(&mut camera, &mut frame, 3);
        let handle = camera.live().unwrap();
        if unplugged {
            driver("unbind");
        } else {
            v4l2_ctl("--set-ctrl=percentage_of_dropped_buffers=100");
        }
        let waiting = thread::spawn(move || {
            while camera.next_frame(&mut frame).unwrap() {}
            (Instant::now(), camera.next_frame(&mut frame).unwrap())
        });
        let start = Instant::now();
        while unplugged && handle.is_up() {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(700));
        let asked = Instant::now();
        handle.stop_signal().stop();
        let (stopped, more) = waiting.join().expect("the camera stops");
        println!("unplugged {unplugged}: stopped after {:?}", stopped.saturating_duration_since(asked));
        assert!(stopped.saturating_duration_since(asked) < Duration::from_millis(250));
        assert!(!more);
        if unplugged {
            driver("bind");
        } else {
            v4l2_ctl("--set-ctrl=percentage_of_dropped_buffers=0");
        }
    }
}
