//! Signals to the program: work is saved, and a resumed run ends in the same bytes.
#![cfg(unix)]

#[expect(dead_code, reason = "other tests call the library")]
mod support;

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use support::Bench;

/// Enough steps that no run ends before its signal.
const RECIPE: &str = r#"
seed = 3
validation_images = 2
student = { start = "model", depth = 2 }
loss = { head = "identity", statistics_images = 4, masked_steps = 0.5 }
optimiser = { learning_rate = 1e-3, warm_up_steps = 1, average = 0.9 }
[[stages]]
steps = 150
batch = 4
views = { sizes_px = [56], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.0, mixup = 0.0 }
[[stages]]
steps = 150
batch = 4
views = { sizes_px = [42], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.0, mixup = 0.0 }
"#;
/// Longest wait before a test counts as hanging.
const PATIENCE: Duration = Duration::from_secs(300);

/// A process that is killed at the end of its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Exit status and standard error.
    fn end(mut self) -> (i32, String) {
        let began = Instant::now();
        while self.is_running() {
            assert!(began.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut stderr = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.0.wait().unwrap().code().expect("an exit status, not a death by signal"), stderr)
    }
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Steps in the metrics of a run.
fn steps(run: &Path) -> usize {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    metrics.lines().filter(|line| line.contains("\"loss\"")).count()
}

/// Pictures, a teacher and [`RECIPE`]. The recipe is written once: processes that start at the same time read it.
fn bench() -> Bench {
    let bench = Bench::new(6);
    fs::write(bench.folder.path().join("recipe.toml"), RECIPE).unwrap();
    bench
}

/// `COMMAND` in the bench's folder over its pictures into `output`.
fn training(bench: &Bench, command: &str, output: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_training"));
    program.args([command, "--recipe", "recipe.toml", "--data", "images", "--output", output]);
    program.args(["--teacher", "teacher.safetensors"]).current_dir(bench.folder.path());
    program
}

fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// The number after a word.
fn number_after(text: &str, word: &str) -> usize {
    let rest = text.split_once(word).unwrap_or_else(|| panic!("{word:?} in {text}")).1;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

fn student(bench: &Bench, run: &str) -> Vec<u8> {
    fs::read(bench.folder.path().join(run).join("student.safetensors")).unwrap()
}

#[test]
fn a_run_that_signals_end_goes_on_bit_for_bit() {
    let bench = bench();
    finish(&mut training(&bench, "distill", "whole"));
    let run = bench.folder.path().join("run");
    let mut before = 0;
    for (signal, status, later) in
        [(Signal::SIGTERM, 143, 7), (Signal::SIGINT, 130, 40), (Signal::SIGHUP, 129, 120)]
    {
        let mut command = training(&bench, "distill", "run");
        let process = Process::start(if before > 0 { command.arg("--resume") } else { &mut command });
        wait_for("steps", || steps(&run) >= before + later);
        process.send(signal);
        let (code, stderr) = process.end();
        assert_eq!(code, status, "{stderr}");
        let done = number_after(&stderr, "stopped after step ");
        assert!(done >= before + later && done < 300 && steps(&run) == done, "{done}: {stderr}");
        let checkpoint = format!("run/checkpoints/step-{done:09}.safetensors");
        let last = stderr.lines().last().unwrap();
        assert!(
            last.contains(" of 300; ") && last.contains("--resume") && last.ends_with(&checkpoint),
            "{stderr}"
        );
        assert!(!run.join("student.safetensors").exists(), "a student before the end");
        if before > 0 {
            assert!(stderr.contains(&format!("going on after step {before} of 300\n")), "{stderr}");
        }
        before = done;
    }
    let stderr = finish(training(&bench, "distill", "run").arg("--resume"));
    assert!(stderr.contains(&format!("going on after step {before} of 300\n")), "{stderr}");
    assert!(student(&bench, "run") == student(&bench, "whole"), "another student");
    assert_eq!(steps(&run), 300);
}

/// Pipes without a writer in the place of images block a step. Temporary files of a killed run are
/// removed.
#[test]
fn a_second_signal_ends_the_program_at_once() {
    let bench = bench();
    let run = bench.folder.path().join("run");
    let process = Process::start(&mut training(&bench, "distill", "run"));
    wait_for("steps", || steps(&run) >= 3);
    for entry in fs::read_dir(&bench.images).unwrap() {
        let path = entry.unwrap().path();
        fs::rename(&path, path.with_extension("kept")).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    }
    // Wait until the batches loaded ahead are used up.
    let mut done = (0, Instant::now());
    wait_for("standstill", || {
        if steps(&run) != done.0 {
            done = (steps(&run), Instant::now());
        }
        done.1.elapsed() > Duration::from_secs(2)
    });
    process.send(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(100));
    // Repeated by a launcher: the same request.
    process.send(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(700));
    let mut process = process;
    assert!(process.0.try_wait().unwrap().is_none(), "one request ends no step");
    process.send(Signal::SIGTERM);
    let (code, stderr) = process.end();
    assert!(
        code == 143 && stderr.contains("a second signal ends") && !stderr.contains("stopped"),
        "{stderr}"
    );

    fs::create_dir_all(run.join("checkpoints")).unwrap();
    fs::write(run.join("checkpoints/.training-1.partial"), "part of a checkpoint").unwrap();
    for entry in fs::read_dir(&bench.images).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "kept") {
            fs::rename(&path, path.with_extension("png")).unwrap();
        }
    }
    let stderr = finish(training(&bench, "distill", "run").arg("--resume"));
    assert!(stderr.contains("note: no checkpoint in run/checkpoints, starting over\n"), "{stderr}");
    let left = fs::read_dir(run.join("checkpoints")).unwrap();
    assert!(
        left.map(|file| file.unwrap().file_name()).all(|name| name.to_string_lossy().starts_with("step-"))
    );
}

#[test]
fn what_the_program_was_started_to_ignore_ends_nothing() {
    let bench = bench();
    let run = bench.folder.path().join("run");
    let inner = training(&bench, "distill", "run");
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args());
    let process = Process::start(command.current_dir(bench.folder.path()));
    wait_for("steps", || steps(&run) >= 3);
    process.send(Signal::SIGHUP);
    process.send(Signal::SIGINT);
    let before = steps(&run);
    wait_for("more steps", || steps(&run) >= before + 10);
    process.send(Signal::SIGTERM);
    let (code, stderr) = process.end();
    assert_eq!(code, 143, "{stderr}");
}

/// A signal to either of two processes stops both at the same step.
#[test]
fn processes_end_at_the_same_step() {
    let bench = bench();
    let together = |run: &str, more: &[&str], meanwhile: &dyn Fn(&mut [Process])| {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut processes = ["0", "1"].map(|rank| {
            let mut command = training(&bench, "distill", run);
            command.args(more).env("RANK", rank).env("WORLD_SIZE", "2");
            Process::start(
                command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", address.port().to_string()),
            )
        });
        meanwhile(&mut processes);
        processes.map(Process::end)
    };
    let ended = together("whole", &[], &|_| {});
    assert!(ended.iter().all(|(code, _)| *code == 0), "{ended:?}");
    let run = bench.folder.path().join("run");
    for (rank, later) in [(1, 5), (0, 60)] {
        let more: &[&str] = if later > 5 { &["--resume"] } else { &[] };
        let ended = together("run", more, &|processes| {
            wait_for("steps", || {
                assert!(processes.iter_mut().all(Process::is_running), "a process ended before its signal");
                steps(&run) >= later
            });
            processes[rank].send(Signal::SIGTERM);
        });
        assert!(ended[rank].0 == 143 && ended[1 - rank].0 == 130, "{ended:?}");
        let done = number_after(&ended[0].1, "stopped after step ");
        assert!(
            run.join(format!("checkpoints/step-{done:09}.safetensors")).exists() && ended[1].1.is_empty()
        );
    }
    let ended = together("run", &["--resume"], &|_| {});
    assert!(ended.iter().all(|(code, _)| *code == 0), "{ended:?}");
    assert!(student(&bench, "run") == student(&bench, "whole"), "another student");
}

/// Files of a cache and their contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_cache_that_signals_end_is_completed() {
    let bench = bench();
    finish(&mut training(&bench, "cache", "whole"));
    let cache = bench.folder.path().join("cache");
    let process = Process::start(&mut training(&bench, "cache", "cache"));
    wait_for("part", || cache.join("targets-000000000.safetensors").exists());
    process.send(Signal::SIGTERM);
    let (code, stderr) = process.end();
    assert_eq!(code, 143, "{stderr}");
    let kept = number_after(&stderr, "features of ");
    assert!(
        kept > 0 && kept < 300 && stderr.trim_end().ends_with("the same command goes on: cache"),
        "{stderr}"
    );
    fs::write(cache.join(".training-1.partial"), "of a process that was killed").unwrap();
    finish(&mut training(&bench, "cache", "cache"));
    assert!(files(&cache) == files(&bench.folder.path().join("whole")));
}

/// In another folder than the repository, with the bundled model.
#[test]
fn a_curation_that_signals_end_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    support::pictures(folder.path(), 700);
    let curate = |output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
        command.args(["curate", "images", "--side", "56", "--output", output]).current_dir(folder.path());
        command
    };
    finish(&mut curate("whole"));
    let scan = folder.path().join("out/scan/data/facts.jsonl");
    let facts = || fs::read_to_string(&scan).unwrap_or_default().lines().count();
    let process = Process::start(&mut curate("out"));
    wait_for("facts", || facts() >= 64);
    process.send(Signal::SIGTERM);
    let (code, stderr) = process.end();
    assert!(code == 143 && stderr.contains("the same command goes on: out/scan"), "{stderr}");
    assert!((64..700).contains(&facts()), "{}", facts());
    finish(&mut curate("out"));
    let manifest = |run: &str| fs::read(folder.path().join(run).join("manifest.jsonl")).unwrap();
    assert!(manifest("out") == manifest("whole"));
}
