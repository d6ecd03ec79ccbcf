//! A recorder is killed at any moment, or its disk is full: what it had recorded can be read.
//!
//! The program starts itself as the recorder, so it has a main function of its own.

#![allow(missing_docs)]

mod common;
#[path = "common/recorder.rs"]
mod recorder;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{frames, open};
use dinov2_files::chain;
use dinov2_io::Recording;

/// Most that may be missing of what was written before the kill.
const MOST_LOST: Duration = Duration::from_secs(1);
const KILLS: u32 = 12;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, path] = words.as_slice()
        && word == "recorder"
    {
        return record_forever(Path::new(path));
    }
    killed_at_random_moments();
    frames_that_stop_coming_are_not_lost();
    a_full_disk_keeps_what_was_recorded();
    println!("test killed_recorder ... ok");
}

/// Records and says after each frame that it did, until a line `stop` comes, after which it only waits.
fn record_forever(path: &Path) {
    let mut recording = Recording::create(path, &recorder::meta(1)).expect("a recording can be created");
    let stopped = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let stopped = Arc::clone(&stopped);
        move || stopped.store(std::io::stdin().lines().next().is_some(), Ordering::Relaxed)
    });
    let mut output = std::io::stdout();
    for index in 0.. {
        if stopped.load(Ordering::Relaxed) {
            // Until the kill; not for ever, should that fail to come.
            return std::thread::sleep(Duration::from_secs(60));
        }
        match recorder::record(&mut recording, 0, index, &recorder::frame(index, 320, 240)) {
            Ok(()) => writeln!(output, "{index}").and_then(|()| output.flush()).expect("someone listens"),
            Err(error) => {
                let again = recorder::record(&mut recording, 0, index, &recorder::frame(index, 320, 240));
                let again = again.expect_err("a recording that failed goes on");
                eprintln!("{}\n{}", chain(&error), chain(&again));
                std::process::exit(3);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn recorder_command(path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg("recorder").arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// Number of frames that can be replayed, each checked.
fn replayed(path: &Path) -> usize {
    let mut source = open(&[path.to_str().unwrap()]).unwrap_or_else(|error| panic!("{error}"));
    let found = frames(&mut *source);
    for (index, frame) in (0..).zip(&found) {
        let expected = recorder::frame(index, 320, 240);
        assert_eq!(frame.capture_ns, expected.capture_ns, "frame {index}");
        assert!(frame.pixels[0].abs_diff(expected.pixels[0]) <= 2, "frame {index}");
    }
    let notes = source.take_notes();
    assert!(notes.iter().all(|note| note.contains("not closed by its recorder")), "{notes:?}");
    found.len()
}

/// Starts a recorder, listens for `alive` after its first frame and kills it. Returns when it said each frame, and when it
/// was killed.
fn run_and_kill(path: &Path, alive: Duration) -> (Vec<Instant>, Instant) {
    let mut child = recorder_command(path).spawn().expect("the recorder starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let listener = std::thread::spawn(move || lines.map_while(Result::ok).map(|_| Instant::now()).collect());
    while !path.exists() || std::fs::metadata(path).expect("it exists").len() < 2000 {
        assert!(child.try_wait().expect("it can be waited for").is_none(), "the recorder ended early");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(alive);
    let killed = Instant::now();
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
    (listener.join().expect("the listener does not panic"), killed)
}

fn killed_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    // Moments spread over several flushes.
    let moments = (0..KILLS).map(|number| Duration::from_millis(u64::from(number) * 431 % 2300));
    let runs: Vec<_> = moments
        .enumerate()
        .map(|(number, alive)| (folder.path().join(format!("{number}.mcap")), alive))
        .collect();
    // They wait most of the time.
    for together in runs.chunks(4) {
        std::thread::scope(|scope| {
            together.iter().for_each(|(path, alive)| drop(scope.spawn(|| killed_after(path, *alive))));
        });
    }
}

fn killed_after(path: &Path, alive: Duration) {
    let (said, killed) = run_and_kill(path, alive);
    let due = said.iter().filter(|when| killed.saturating_duration_since(**when) > MOST_LOST).count();
    let found = replayed(path);
    println!("killed after {alive:?}: {found} frames of {} written, {due} due", said.len());
    assert!(found >= due.max(1), "killed after {alive:?}: expected the {due} frames due, got {found}");
}

/// The last frames before a pause are with the system after a second, too.
fn frames_that_stop_coming_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    let mut child = recorder_command(&path).spawn().expect("the recorder starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut written = lines.by_ref().take(40).map(Result::unwrap).count();
    writeln!(child.stdin.as_mut().expect("piped"), "stop").expect("the recorder listens");
    let listener = std::thread::spawn(move || lines.map_while(Result::ok).count());
    // Its last frames, then the second that it has for them.
    std::thread::sleep(MOST_LOST + Duration::from_secs(2));
    child.kill().expect("it can be killed");
    child.wait().expect("it can be waited for");
    written += listener.join().expect("the listener does not panic");
    assert_eq!(replayed(&path), written);
}

/// A limit on the size of files stands for the full disk: both fail in the middle of a write.
#[cfg(unix)]
fn a_full_disk_keeps_what_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.mcap");
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$0\" recorder \"$1\""])
        .arg(std::env::current_exe().expect("this program has a path"))
        .arg(&path)
        .stdin(Stdio::piped())
        .output()
        .expect("sh starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{complaint}");
    let (first, again) = complaint.trim().split_once('\n').expect("two lines");
    assert!(first.starts_with("cannot write ") && first.contains("run.mcap: "), "{first}");
    assert!(again.contains("the recording ended with an earlier error"), "{again}");
    let written = String::from_utf8_lossy(&output.stdout).lines().count();
    let found = replayed(&path);
    assert!(found > 1 && found <= written, "{found} of {written}");
    println!("full disk: {found} frames of {written} written");
}

#[cfg(not(unix))]
fn a_full_disk_keeps_what_was_recorded() {
    println!("SKIPPED: a full disk, which is made by ulimit");
}
