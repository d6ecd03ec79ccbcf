//! The command `training distill`.

#[expect(dead_code, reason = "other tests call the library")]
mod support;

use std::process::Command;

use support::Bench;

const RECIPE: &str = r#"
seed = 3
validation_images = 2
student = { start = "model", depth = 2 }
loss = { head = "identity", statistics_images = 4, masked = 0.0 }
optimiser = { learning_rate = 1e-3, warm_up_steps = 1, average = 0.9 }
[[stages]]
steps = 2
batch = 2
views = { sizes_px = [28], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.0, mixup = 0.0 }
"#;

/// Runs `distill` in the bench's folder with more arguments. Returns success, standard output and standard error.
fn distill(bench: &Bench, recipe: &str, more: &[&str]) -> (bool, String, String) {
    let folder = bench.folder.path();
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
    command.args(["distill", "--recipe", "recipe.toml", "--data", "images", "--output", "run"]);
    if !more.contains(&"--teacher") {
        command.args(["--teacher", "teacher.safetensors"]);
    }
    command.args(more).current_dir(folder);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_run_that_ended_before_its_first_checkpoint_is_resumed() {
    let bench = Bench::new(6);
    let run = bench.folder.path().join("run");
    // A file has the name of the checkpoint folder, as if the disk were full.
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("checkpoints"), b"").unwrap();
    let (succeeded, _, stderr) = distill(&bench, RECIPE, &["--checkpoint-every", "1"]);
    assert!(!succeeded && stderr.lines().last().unwrap().contains("checkpoints"), "{stderr}");
    std::fs::remove_file(run.join("checkpoints")).unwrap();
    let (succeeded, _, stderr) = distill(&bench, RECIPE, &[]);
    assert!(!succeeded && stderr.lines().last().unwrap().contains("--resume"), "{stderr}");
    let (succeeded, printed, stderr) = distill(&bench, RECIPE, &["--resume"]);
    assert!(succeeded, "{stderr}");
    assert_eq!(printed.trim(), "run/student.safetensors");
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let losses = metrics.lines().filter(|line| line.contains("\"loss\"")).count();
    assert_eq!(losses, 2, "{metrics}");
}

#[test]
fn a_teacher_may_compute_in_16_bits_and_is_another_one_then() {
    let bench = Bench::new(6);
    let half = ["--teacher", "teacher.safetensors:half"];
    let (succeeded, _, stderr) = distill(&bench, RECIPE, &[&half[..], &["--stop-after", "1"]].concat());
    assert!(succeeded, "{stderr}");
    let (succeeded, _, stderr) = distill(&bench, RECIPE, &["--resume"]);
    assert!(!succeeded && stderr.contains("expected the teacher that the run began with"), "{stderr}");
    let (succeeded, _, stderr) = distill(&bench, RECIPE, &[&half[..], &["--resume"]].concat());
    assert!(succeeded, "{stderr}");
}

/// A step of most of a terabyte, of which smaller parts would fit.
#[test]
#[cfg(target_os = "linux")]
fn a_step_that_does_not_fit_is_refused_before_anything_is_computed() {
    let bench = Bench::new(4);
    let text = RECIPE.replace("batch = 2", "batch = 1024").replace("sizes_px = [28]", "sizes_px = [980]");
    let (succeeded, _, stderr) = distill(&bench, &text, &[]);
    let line = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    let expected =
        ["memory: expected some ", " GB for a step of stage 1, got ", "accumulate = ", "recipe.toml"];
    assert!(!succeeded && expected.iter().all(|part| line.contains(part)), "{stderr}");
    // No other output before.
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
}

#[test]
fn mistakes_get_one_line_that_says_what_and_where() {
    let bench = Bench::new(4);
    let misspelt = RECIPE.replace("batch = 2", "batches = 2");
    for (recipe, more, expected) in [
        (misspelt.as_str(), &[][..], ["batches", "recipe.toml"]),
        (
            &RECIPE.replace("masked = 0.0", "taps = [{ student_block = 0, teacher_block = 3 }]"),
            &[],
            ["loss.taps", "recipe.toml"],
        ),
        (
            &RECIPE.replace("masked = 0.0", "taps = [{ student_block = 2, teacher_block = 0 }]"),
            &[],
            ["loss.taps", "recipe.toml"],
        ),
        (
            &RECIPE.replace("masked = 0.0", "taps = [{ student = 1, teacher = 1 }]"),
            &[],
            ["write { student_block = 0, teacher_block = 0 }", "recipe.toml"],
        ),
        (&RECIPE.replace("sizes_px = [28]", "sizes_px = [30]"), &[], ["sizes_px", "recipe.toml"]),
        (&RECIPE.replace("depth = 2", "depth = 9"), &[], ["depth", "recipe.toml"]),
        (
            &RECIPE.replace("1e-3,", "1e-3, weight_decay = -1.0,"),
            &[],
            ["optimiser.weight_decay", "recipe.toml"],
        ),
        (&RECIPE.replace("1e-3,", "1e-3, betas = [0.9, 1.0],"), &[], ["optimiser.betas", "recipe.toml"]),
        (RECIPE, &["--teacher", "teacher.safetensors:bf8"], ["teacher.safetensors:bf8", "No such file"]),
        (RECIPE, &["--device", "gpu"], ["expected cpu, cuda or cuda:N", "gpu"]),
        (RECIPE, &["--cache", "absent"], ["absent", "cache"]),
    ] {
        let (succeeded, printed, stderr) = distill(&bench, recipe, more);
        assert!(!succeeded && printed.is_empty());
        let _ = std::fs::remove_dir_all(bench.folder.path().join("run"));
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(matches!(errors[..], [line] if expected.iter().all(|word| line.contains(word))), "{stderr}");
    }
}
