//! `run` as something that is left running: signals, limits, recordings, the page. The camera is the one that is none.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{fails, files, media, program, succeeds};
use safetensors::SafeTensors;
use serde_json::Value;

/// A camera that an unoptimised build on a busy machine keeps up with.
const CAMERA: [&str; 5] = ["run", "--camera", "test:112x84@10", "--size", "56"];

fn starts(words: &[&str]) -> Child {
    program(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

/// The line that says where the page is, and its address.
fn page_of(child: &mut Child) -> (String, String) {
    let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = stderr.map(Result::unwrap).find(|line| line.starts_with("live page: ")).unwrap();
    let address = line.trim_start_matches("live page: http://").split('/').next().unwrap().to_string();
    (line, address)
}

/// Sends a signal, waits for the end and returns the exit code and how long it took.
fn ends_by(mut child: Child, signal: &str) -> (Option<i32>, Duration) {
    let asked = Instant::now();
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let status = child.wait().unwrap();
    (status.code(), asked.elapsed())
}

#[test]
fn signals_end_a_run_soon_and_all_files_are_whole() {
    for signal in ["-TERM", "-INT"] {
        let folder = tempfile::tempdir().unwrap();
        let (features, recording) = (folder.path().join("features"), folder.path().join("run.mcap"));
        let outputs = ["--output", features.to_str().unwrap(), "--record", recording.to_str().unwrap()];
        let mut child = starts(&[&CAMERA[..], &outputs, &["--json"]].concat());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let told: Vec<String> = lines.by_ref().take(3).map(Result::unwrap).collect();
        assert_eq!(told.len(), 3);
        let (code, took) = ends_by(child, signal);
        // The promise is 300 ms on an idle machine.
        assert!(code == Some(0) && took < Duration::from_secs(3), "{signal}: {code:?} after {took:?}");
        let told = 3 + lines.count();
        let written = files(&features);
        assert!(written.len() >= told, "{} files, {told} lines", written.len());
        for file in written {
            let bytes = std::fs::read(&file).unwrap();
            let shape = SafeTensors::deserialize(&bytes).unwrap().tensor("patches").unwrap().shape().to_vec();
            assert_eq!(shape, [4, 5, 384], "{}", file.display());
        }
        // Closed, so nothing is said about it.
        let replayed =
            program(&["run", "--input", recording.to_str().unwrap(), "--size", "56"]).output().unwrap();
        assert!(replayed.status.success());
        assert!(!String::from_utf8_lossy(&replayed.stderr).contains("note: "));
        assert!(String::from_utf8_lossy(&replayed.stdout).lines().count() >= 3);
    }
}

#[test]
fn what_was_recorded_is_what_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("run.mcap");
    let recording = recording.to_str().unwrap();
    let cat = media("cat.mjpeg");
    succeeds(&["run", "--input", &cat, "--size", "56", "--frames", "4", "--record", recording]);
    let replay = succeeds(&["run", "--input", recording, "--size", "56", "--json"]);
    let frames: Vec<Value> = replay.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(frames.len(), 4);
    let times: Vec<u64> = frames.iter().map(|frame| frame["capture_ns"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    fails(&["run", "--input", &cat, "--record", recording], 1, "exists");
    let nowhere = folder.path().join("none/run.mcap");
    fails(&["run", "--input", &cat, "--record", nowhere.to_str().unwrap()], 1, "none");
}

#[test]
fn a_killed_recorder_leaves_a_readable_recording() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("run.mcap");
    let mut child = starts(&[&CAMERA[..], &["--record", recording.to_str().unwrap(), "--json"]].concat());
    let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let old = told.by_ref().take(5).last().unwrap();
    std::thread::sleep(Duration::from_millis(1_000));
    child.kill().unwrap();
    child.wait().unwrap();
    let old: Value = serde_json::from_str(&old).unwrap();
    let replay = succeeds(&["run", "--input", recording.to_str().unwrap(), "--size", "56", "--json"]);
    let last: Value = serde_json::from_str(replay.lines().last().unwrap()).unwrap();
    assert!(last["capture_ns"].as_u64() >= old["capture_ns"].as_u64(), "{last} {old}");
}

#[test]
fn the_page_answers_while_frames_come() {
    let mut child = starts(&[&CAMERA[..], &["--view", "127.0.0.1:0"]].concat());
    let (_, address) = page_of(&mut child);
    let deadline = Instant::now() + Duration::from_secs(60);
    let metrics = loop {
        let metrics = get(&address, "/metrics");
        let frames = metrics.lines().find_map(|line| line.strip_prefix("dinov2_frames_total "));
        if frames.is_some_and(|frames| frames != "0") {
            break metrics;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("dinov2_fps "), "{metrics}");
    assert!(get(&address, "/snapshot").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/").contains("<!doctype html>"));
    assert_eq!(ends_by(child, "-TERM").0, Some(0));
}

/// The answer of a server, its head included.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn limits_end_a_run() {
    let frames = succeeds(&[&CAMERA[..], &["--frames", "3", "--json"]].concat());
    assert_eq!(frames.lines().count(), 3);
    let start = Instant::now();
    assert_eq!(
        succeeds(&[&CAMERA[..], &["--duration", "1.5"]].concat()),
        "",
        "a camera is no stream of text"
    );
    assert!(start.elapsed() >= Duration::from_millis(1_500));
    let both = ["run", "--camera", "test:56x56@10", "--camera", "test:84x56@10", "--size", "56", "--json"];
    let both = succeeds(&[&both[..], &["--frames", "12"]].concat());
    let cameras: Vec<Value> = both.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (camera, cols) in [(0, 4), (1, 6)] {
        let its: Vec<&Value> = cameras.iter().filter(|frame| frame["camera"] == camera).collect();
        assert!(its.len() >= 3 && its.iter().all(|frame| frame["grid"]["cols"] == cols), "{both}");
    }
}

#[cfg(unix)]
#[test]
fn tokens_come_from_files_and_the_environment_and_are_not_printed() {
    use std::os::unix::fs::PermissionsExt;
    const TOKEN: &str = "correct-horse-battery";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let file = file.to_str().unwrap();
    let view = ["--view", "127.0.0.1:0"];
    mode(0o600);
    for from_file in [true, false] {
        let source: &[&str] = if from_file { &["--token-file", file] } else { &[] };
        let mut command = program(&[&CAMERA[..], &view, source].concat());
        // The file goes before the environment.
        command.env("DINOV2_EDGE_TOKEN", if from_file { "another-word-there" } else { TOKEN });
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (line, address) = page_of(&mut child);
        assert!(!line.contains("horse") && line.contains("?token=TOKEN"), "{line}");
        assert!(get(&address, "/metrics").starts_with("HTTP/1.1 401"));
        assert!(get(&address, &format!("/metrics?token={TOKEN}")).starts_with("HTTP/1.1 200"));
        assert_eq!(ends_by(child, "-TERM").0, Some(0));
    }
    let run = [&["run", "--input", "test:", "--frames", "1"], &view[..]].concat();
    mode(0o644);
    fails(&[&run[..], &["--token-file", file]].concat(), 2, "0644");
    mode(0o600);
    std::fs::write(file, "short\n").unwrap();
    fails(&[&run[..], &["--token-file", file]].concat(), 2, "got 5 bytes");
    fails(&[&run[..], &["--token-file", "no-such-file"]].concat(), 1, "no-such-file");
    fails(&[&run[..], &["--token-file", "/dev/zero"]].concat(), 2, "/dev/zero");
    let open =
        program(&[&run[..], &["--insecure"]].concat()).env("DINOV2_EDGE_TOKEN", TOKEN).output().unwrap();
    let told = String::from_utf8_lossy(&open.stderr);
    assert!(
        open.status.code() == Some(2) && told.contains("DINOV2_EDGE_TOKEN") && !told.contains(TOKEN),
        "{told}"
    );
}

#[test]
fn mistakes_are_told_in_one_line() {
    fails(&["run", "--camera", "/dev/no-such-camera"], 1, "/dev/no-such-camera");
    fails(&["run", "--camera", "/dev/null"], 1, "/dev/null");
    fails(&["run", "--camera", "987"], 1, "/dev/video987");
    fails(&["run", "--camera", "test:5"], 2, "test:WIDTHxHEIGHT");
    fails(&["run", "--input", "test:", "--view", "0.0.0.0:0"], 2, "token");
    fails(&["run", "--input", "test:", "--view", "127.0.0.1:0", "--token", "short"], 2, "token");
    if !Path::new("/dev/video0").exists() {
        fails(&["run"], 2, "no camera");
        fails(&["cameras"], 1, "camera");
    }
    for words in [
        &["--camera", "test:", "--input", "test:"][..],
        &["--camera", "test:", "--duration", "0"],
        &["--camera", "test:", "--fps", "-1"],
        &["--camera", "test:", "--control", "gain"],
        &["--camera", "test:", "--camera-format", "h264"],
        &["--input", "test:", "--frames", "0"],
        &["--input", "test:", "--token", "word-of-viewers"],
        &["--input", "test:", "--token-file", "token"],
        &["--input", "test:", "--view", "--token", "word-of-viewers", "--token-file", "token"],
        &["--input", "test:", "--view", "--insecure", "--token-file", "token"],
        &["--input", "test:", "--view", "localhost"],
    ] {
        let output = program(&[&["run"], words].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.starts_with("error: "), "{words:?}: {stderr}");
    }
}
