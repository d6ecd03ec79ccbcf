//! Training in several processes.

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use dinov2_weights::Model;
use training::parallel::Launch;

use support::Bench;

const RECIPE: &str = r#"
seed = 3
validation_images = 4
student = { start = "model", depth = 2 }
loss = { head = "identity", statistics_images = 16, taps = [{ student_block = 0, teacher_block = 0 }], masked_steps = 0.7 }
optimiser = { learning_rate = 1e-3, warm_up_steps = 2, average = 0.9 }
[[stages]]
steps = 5
batch = 6
views = { sizes_px = [42, 56], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.1, mixup = 0.0 }
"#;

/// An address that was free a moment ago.
fn address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Three processes, each with a part of every batch, end in the same bytes as one process that computes the parts in turn.
#[test]
fn processes_learn_what_one_learns() {
    let bench = Bench::new(22);
    let one = bench.config(bench.recipe(&RECIPE.replace("batch = 6", "batch = 6\naccumulate = 3")), "one");
    let want = std::fs::read(bench.run(&one).unwrap().0).unwrap();

    let recipe = bench.recipe(RECIPE);
    let together = |run: &str, stop_after: Option<u64>, resume: bool| -> Vec<Vec<f64>> {
        let address = address();
        std::thread::scope(|scope| {
            let processes: Vec<_> = (0..3)
                .map(|rank| {
                    let mut config = bench.config(recipe.clone(), run);
                    config.launch = Some(Launch {
                        rank,
                        world: 3,
                        local_rank: rank,
                        local_world: 1,
                        address: address.clone(),
                    });
                    (config.stop_after, config.resume) = (stop_after, resume);
                    let bench = &bench;
                    scope.spawn(move || bench.run(&config).unwrap().1)
                })
                .collect();
            processes.into_iter().map(|process| process.join().unwrap()).collect()
        })
    };
    let losses = together("three", None, false);
    assert!(losses[0].len() == 5 && losses.iter().all(|other| *other == losses[0]), "{losses:?}");
    let path = bench.folder.path().join("three/student.safetensors");
    assert!(std::fs::read(&path).unwrap() == want, "another student");

    together("parts", Some(2), false);
    let rest = together("parts", None, true);
    assert_eq!(rest[2], losses[2][2..]);
    assert!(std::fs::read(bench.folder.path().join("parts/student.safetensors")).unwrap() == want);
    assert!(Model::open(&path).is_ok());
}

/// The program, started as torchrun starts it.
#[test]
fn the_program_reads_what_launchers_say() {
    let bench = Bench::new(12);
    let recipe = bench.folder.path().join("recipe.toml");
    bench.recipe(RECIPE);
    let address = address();
    let (host, port) = address.rsplit_once(':').unwrap();
    let start = |rank: &str, output: &Path| {
        Command::new(env!("CARGO_BIN_EXE_training"))
            .args(["distill", "--recipe"])
            .arg(&recipe)
            .args(["--teacher"])
            .arg(bench.folder.path().join("teacher.safetensors"))
            .arg("--data")
            .arg(&bench.images)
            .arg("--output")
            .arg(output)
            .envs([("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", host), ("MASTER_PORT", port)])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let output = bench.folder.path().join("run");
    let processes =
        [start("0", &output), start("1", &output)].map(|process| process.wait_with_output().unwrap());
    let stderr = processes.each_ref().map(|process| String::from_utf8_lossy(&process.stderr).into_owned());
    assert!(processes.iter().all(|process| process.status.success()), "{stderr:?}");
    assert!(
        String::from_utf8_lossy(&processes[0].stdout).contains("student.safetensors")
            && processes[1].stdout.is_empty()
    );
    assert!(stderr[1].is_empty(), "{}", stderr[1]);
    let lines = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.matches("\"loss\"").count(), 5, "{lines}");

    // A rank beyond the world size.
    let odd = start("7", &output).wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&odd.stderr).into_owned();
    assert!(
        !odd.status.success() && stderr == "error: RANK: expected a number up to 1, got \"7\"\n",
        "{stderr}"
    );
}
