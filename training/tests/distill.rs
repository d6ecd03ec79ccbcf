//! Distillation of small models: learning, resuming bit for bit, errors.

#[path = "support/fidelity.rs"]
mod fidelity;
mod support;

use std::time::Duration;

use candle_core::Device;
use dinov2_cpu::{CpuConfig, CpuPrecision};
use dinov2_files::chain;
use dinov2_weights::Model;
use training::data::Dataset;
use training::distill::{CheckpointEvery, DistillError, Event, RunConfig};
use training::recipe::Recipe;
use training::stop::Stop;
use training::teacher::EngineTeacher;

use fidelity::patch_cosine;
use support::{Bench, pictures};

const RECIPE: &str = r#"
seed = 3
validation_images = 4
student = { start = "model", depth = 2 }
loss = { head = "identity", statistics_images = 16, taps = [{ student_block = 0, teacher_block = 0 }], masked_steps = 0.5 }
optimiser = { learning_rate = 1e-3, warm_up_steps = 2, average = 0.9 }
[[stages]]
steps = 5
batch = 4
accumulate = 2
views = { sizes_px = [56], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.1, mixup = 0.5, colour = { brightness = 0.3, contrast = 0.3, saturation = 0.2, hue = 0.1, probability = 0.8 } }
[[stages]]
steps = 3
batch = 4
views = { sizes_px = [42, 56], teacher_sizes_px = [70], scale = [0.5, 1.0], ratio = [0.8, 1.25], flip = 0.5, grey = 0.0, mixup = 0.0 }
"#;

#[test]
fn a_run_that_was_stopped_goes_on_bit_for_bit() {
    let bench = Bench::new(14);
    let whole = bench.config(bench.recipe(RECIPE), "whole");
    let (path, losses, _) = bench.run(&whole).unwrap();
    assert_eq!(losses.len(), 8);
    let want = std::fs::read(&path).unwrap();
    // Stopped in the first stage and in the second; the last run only writes the student.
    let mut parts = bench.config(bench.recipe(RECIPE), "parts");
    let mut again = Vec::new();
    for stop_after in [Some(3), Some(7), None, None] {
        parts.stop_after = stop_after;
        let (path, losses, _) = bench.run(&parts).unwrap();
        again.extend(losses);
        parts.resume = true;
        if stop_after.is_none() {
            assert!(std::fs::read(path).unwrap() == want, "another student");
        }
    }
    assert_eq!(again, losses);
    // The number of checkpoints that are kept.
    assert_eq!(std::fs::read_dir(parts.output.join("checkpoints")).unwrap().count(), 2);
    let student = Model::open(path).unwrap();
    assert_eq!((student.spec().depth, student.spec().dim), (2, 48));
}

/// Times of checkpoints do not change the result.
#[test]
fn checkpoints_by_time_change_nothing() {
    let bench = Bench::new(14);
    let mut students = Vec::new();
    for (run, time, count) in [("never", Duration::MAX, 1), ("always", Duration::ZERO, 8)] {
        let mut config = bench.config(bench.recipe(RECIPE), run);
        config.checkpoint_every = CheckpointEvery { steps: None, time };
        let mut checkpoints = 0;
        let message =
            &mut |event: &Event<'_>| checkpoints += u32::from(matches!(event, Event::Checkpoint(_)));
        students.push(std::fs::read(bench.run_and(&config, message).unwrap().0).unwrap());
        assert_eq!(checkpoints, count, "{run}");
    }
    assert!(students[0] == students[1], "another student");
}

/// Two parts of a batch give the loss of the whole batch, up to the order of sums.
#[test]
fn parts_of_a_batch_add_up_to_it() {
    let bench = Bench::new(14);
    let losses = |accumulate: &str, run: &str| {
        let text = RECIPE.replace("masked_steps = 0.5", "masked = 0.0").replace("accumulate = 2", accumulate);
        bench.run(&bench.config(bench.recipe(&text), run)).unwrap().1
    };
    let (whole, parts) = (losses("accumulate = 1", "whole"), losses("accumulate = 2", "parts"));
    let near = whole.iter().zip(&parts).all(|(whole, part)| (whole - part).abs() < 1e-4 * whole);
    assert!(near && whole.len() == 8, "{whole:?} {parts:?}");
}

/// Students narrower than their teacher, with every head and standardisation: the loss falls, and every variable, heads
/// included, has received gradients.
#[test]
fn narrow_students_learn_through_every_head() {
    let bench = Bench::new(14);
    for (head, standardise) in
        [("mlp", "phi-s"), ("linear", "mean-std"), ("mlp", "mean-std"), ("linear", "phi-s")]
    {
        let recipe = RECIPE
            .replace("start = \"model\", depth = 2", "start = \"scratch\", dim = 24, depth = 2, heads = 2")
            .replace("\"identity\"", &format!("\"{head}\", standardise = \"{standardise}\""))
            .replace("masked_steps = 0.5", "masked = 0.0")
            .replace("learning_rate = 1e-3", "learning_rate = 3e-3");
        let config = bench.config(bench.recipe(&recipe), &format!("{head}-{standardise}"));
        let (_, losses, agreement) = bench.run(&config).unwrap();
        // Measured through the heads; after so few steps the student has only learnt what patches have in common.
        let agreement = agreement.unwrap();
        assert!(agreement.patch_median > 0.0 && agreement.patch_median < 1.0, "{agreement:?}");
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&losses[5..]) < mean(&losses[..2]), "{head}, {standardise}: {losses:?}");
        let bytes = std::fs::read(config.output.join("checkpoints/step-000000008.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let weights: Vec<&str> =
            file.names().into_iter().filter_map(|name| name.strip_prefix("weights.")).collect();
        assert!(weights.iter().filter(|name| name.starts_with("head.")).count() >= 6, "{weights:?}");
        for name in weights.into_iter().filter(|name| *name != "mask_token") {
            let moments = file.tensor(&format!("moments.1.{name}")).unwrap();
            assert!(moments.data().iter().any(|byte| *byte != 0), "{name} has learnt nothing");
        }
    }
}

/// As on a full disk. The steps since the previous checkpoint are repeated.
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
    let bench = Bench::new(14);
    let (path, losses, _) = bench.run(&bench.config(bench.recipe(RECIPE), "whole")).unwrap();
    let mut config = bench.config(bench.recipe(RECIPE), "run");
    // A folder has the name of the second checkpoint.
    let in_the_way = config.output.join("checkpoints/step-000000004.safetensors");
    let mut done = 0;
    let failed = bench.run_and(&config, &mut |event| match event {
        Event::Step { .. } => done += 1,
        Event::Checkpoint(_) => std::fs::create_dir(&in_the_way).unwrap(),
        _ => {}
    });
    let message = chain(&failed.unwrap_err());
    assert!(
        done == 4 && message.starts_with("cannot write ") && message.contains("step-000000004"),
        "{done}: {message}"
    );
    std::fs::remove_dir(&in_the_way).unwrap();
    config.resume = true;
    let (again, rest, _) = bench.run(&config).unwrap();
    assert_eq!(rest, losses[2..]);
    assert!(std::fs::read(again).unwrap() == std::fs::read(path).unwrap(), "another student");
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let bench = Bench::new(10);
    let mut config = bench.config(bench.recipe(RECIPE), "run");
    config.stop_after = Some(2);
    bench.run(&config).unwrap();
    let message = |config: &RunConfig| chain(&bench.run(config).unwrap_err());
    assert!(message(&config).contains("--resume"));
    config.resume = true;
    let other = RunConfig { recipe: bench.recipe(&RECIPE.replace("seed = 3", "seed = 4")), ..config.clone() };
    assert!(message(&other).contains("recipe that the run began with"));
    let other = RunConfig { teacher: "another".into(), ..config.clone() };
    assert!(message(&other).contains("teacher that the run began with"));
    let checkpoint = config.output.join("checkpoints/step-000000002.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    assert!(message(&config).starts_with("checkpoint: "), "{}", message(&config));
    pictures(bench.folder.path(), 11);
    std::fs::write(&checkpoint, &bytes).unwrap();
    assert!(message(&config).contains("images that the run began with"));
}

/// Older checkpoints count blocks from 1.
#[test]
fn a_checkpoint_that_counts_blocks_from_1_is_resumed() {
    let bench = Bench::new(10);
    let whole = bench.run(&bench.config(bench.recipe(RECIPE), "whole")).unwrap();
    let mut config = bench.config(bench.recipe(RECIPE), "run");
    config.stop_after = Some(2);
    bench.run(&config).unwrap();
    let checkpoint = config.output.join("checkpoints/step-000000002.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(bytes[8..end].to_vec()).unwrap();
    let [today, before] = [r#"{"student_block":0,"teacher_block":0}"#, r#"{"student":1,"teacher":1}"#]
        .map(|pair| pair.replace('"', "\\\""));
    assert!(header.contains(&today), "{header}");
    // Padded to its old length: a header may end with white space.
    let header = format!("{:1$}", header.replace(&today, &before), header.len());
    std::fs::write(&checkpoint, [&bytes[..8], header.as_bytes(), &bytes[end..]].concat()).unwrap();
    (config.stop_after, config.resume) = (None, true);
    let resumed = bench.run(&config).unwrap();
    assert_eq!(resumed.1, whole.1[2..]);
    assert!(std::fs::read(resumed.0).unwrap() == std::fs::read(whole.0).unwrap(), "another student");
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_keeps_the_batch() {
    let bench = Bench::new(10);
    let recipe =
        RECIPE.replace("learning_rate = 1e-3, warm_up_steps = 2", "learning_rate = 1e30, warm_up_steps = 0");
    let config = bench.config(bench.recipe(&recipe), "run");
    match bench.run(&config).unwrap_err() {
        DistillError::Loss { step, batch, .. } => {
            assert!(step > 0, "the first weights are sound");
            let names = std::fs::read_to_string(batch.join("images.txt")).unwrap();
            assert!(names.lines().count() == 4 && names.contains(".png"), "{names}");
            assert!(batch.join("0003.png").exists());
            let terms = std::fs::read_to_string(batch.join("terms.txt")).unwrap();
            assert!(terms.starts_with("loss\t") && terms.contains("\ngradient norm\t"), "{terms}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn images_that_cannot_be_read_are_listed() {
    let bench = Bench::new(12);
    for number in 0..4 {
        std::fs::write(bench.images.join(format!("broken-{number}.png")), b"no picture").unwrap();
    }
    let mut config = bench.config(bench.recipe(RECIPE), "run");
    // Of held-out images, of a stopped run, and of both stages.
    config.stop_after = Some(1);
    let list = |config: &RunConfig| std::fs::read_to_string(config.output.join("unreadable.txt"));
    let mut counts = Vec::new();
    let message = &mut |event: &Event<'_>| {
        if let Event::Unreadable(count) = event {
            counts.push(*count);
        }
    };
    bench.run_and(&config, message).unwrap();
    assert!(list(&config).unwrap().contains("broken-"));
    config.stop_after = None;
    config.resume = true;
    bench.run_and(&config, message).unwrap();
    let list = list(&config).unwrap();
    let names: Vec<_> = list.lines().map(|line| line.split_once('\t').unwrap().0).collect();
    let all: Vec<_> = (0..4).map(|number| format!("broken-{number}.png")).collect();
    assert!(names.len() == 4 && names.iter().zip(&all).all(|(got, want)| got.ends_with(want)), "{list}");
    assert!(counts.is_sorted_by(|a, b| a < b) && counts.last() == Some(&4), "{counts:?}");
}

#[test]
fn sixty_four_images_are_learnt_by_heart() {
    let bench = Bench::new(65);
    let recipe = r#"
        validation_images = 1
        student = { start = "model", depth = 2 }
        loss = { head = "identity", statistics_images = 64, masked = 0.0 }
        optimiser = { learning_rate = 2e-3, warm_up_steps = 20, average = 0.99, weight_decay = 0.0 }
        [[stages]]
        steps = 900
        batch = 16
        views = { sizes_px = [56], scale = [1.0, 1.0], ratio = [1.0, 1.0], flip = 0.0, grey = 0.0, mixup = 0.0 }
    "#;
    let config = bench.config(bench.recipe(recipe), "run");
    let (path, losses, held_out) = bench.run(&config).unwrap();
    println!("loss {:.4} to {:.4}, held out {held_out:?}", losses[0], losses[losses.len() - 1]);
    let (median, p5) =
        patch_cosine(&bench.model, (&Model::open(path).unwrap(), CpuPrecision::F32), &bench.dataset(), 56);
    println!("patch cosine on the images learnt: median {median:.4}, p5 {p5:.4}");
    assert!(median >= 0.99, "{median}");
}

/// Compares with the engine's results on the files of both models and the held-out images.
#[test]
fn students_are_measured_at_the_largest_side_of_every_stage() {
    let bench = Bench::new(14);
    let recipe = bench.recipe(&RECIPE.replacen("[56]", "[42]", 1).replace("teacher_sizes_px = [70], ", ""));
    let mut measured = Vec::new();
    let (path, ..) = bench
        .run_and(&bench.config(recipe.clone(), "run"), &mut |event| {
            if let Event::Validated { agreements, .. } = event {
                measured = agreements.to_vec();
            }
        })
        .unwrap();
    let student = Model::open(path).unwrap();
    let (_, held_out) = bench.dataset().split(recipe.validation_images, recipe.seed);
    assert_eq!(measured.iter().map(|at| at.side_px).collect::<Vec<_>>(), [42, 56]);
    for at in measured {
        // Of the larger squares there are as many as have no more pixels: of 4 images 4 * 42² / 56² = 2, every other one.
        let names = (0..held_out.len()).filter(|sample| at.side_px == 42 || sample % 2 == 1);
        let names: Vec<String> = names.map(|sample| held_out.name(sample).to_owned()).collect();
        let chosen = Dataset::open(&names).unwrap();
        let want = patch_cosine(&bench.model, (&student, CpuPrecision::F32), &chosen, at.side_px);
        assert!((at.patch_median - want.0).abs() < 1e-4, "{at:?}, {want:?}");
        assert!((at.patch_p5 - want.1).abs() < 1e-4, "{at:?}, {want:?}");
    }
}

/// Targets of a teacher and of its cache, for all batches of both stages and for held-out images of both sizes.
#[test]
fn a_cache_says_what_its_teacher_said() {
    use std::sync::Arc;
    use training::data::{Loader, LoaderPlan};
    use training::loss::Targets;
    use training::teacher::{CacheConfig, CachedTeacher, Compression, Teacher, write_cache};
    let bench = Bench::new(12);
    let text = RECIPE.replacen("[56]", "[42]", 1);
    let recipe = bench.recipe(&text);
    let dataset = || bench.dataset();
    let mut teacher = EngineTeacher::new(&bench.model, CpuConfig::default(), &[0], &Device::Cpu).unwrap();
    for (compression, limit) in [(Compression::F16, 1e-3), (Compression::Int8, 1e-2)] {
        let config = CacheConfig {
            recipe: recipe.clone(),
            output: bench.folder.path().join(format!("{compression:?}")),
            compression,
            teacher: "golden".into(),
            workers: 2,
            stop: Stop::default(),
        };
        write_cache(&config, &mut teacher, dataset(), &mut |_| {}).unwrap();
        let fingerprint = dataset().fingerprint_hex();
        let open = |teacher: &str, recipe: &Recipe| {
            CachedTeacher::open(&config.output, teacher, recipe, &fingerprint, &Device::Cpu)
        };
        let mut cached = open("golden", &recipe).unwrap();
        let near = |got: &Targets, want: &Targets, limit: f32, what: &str| {
            assert_eq!(got.grid, want.grid);
            let taps = got.taps.iter().zip(&want.taps);
            for (got, want) in [(&got.cls, &want.cls), (&got.patches, &want.patches)].into_iter().chain(taps)
            {
                let norm = |tensor: &candle_core::Tensor| {
                    tensor.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt()
                };
                let distance = norm(&(got - want).unwrap()) / norm(want);
                assert!(distance < limit, "{compression:?} {what}: {distance}");
            }
        };
        let (train, held_out) = dataset().split(recipe.validation_images, recipe.seed);
        let train = Arc::new(train);
        for step in 0..recipe.steps() {
            let stage = recipe.stage(step).unwrap();
            let plan =
                LoaderPlan { seed: recipe.seed, batch: stage.batch, rank: 0, world: 1, workers: 1, ahead: 1 };
            let batch =
                Loader::new(Arc::clone(&train), stage.views.clone(), plan, step).unwrap().next().unwrap();
            near(&cached.targets(&batch).unwrap(), &teacher.targets(&batch).unwrap(), limit, "views");
        }
        let (batches, _) = training::data::held_out(&held_out, &recipe.held_out_sides()).unwrap();
        assert_eq!(batches.len(), 2);
        for batch in batches {
            near(&cached.held_out(&batch).unwrap(), &teacher.held_out(&batch).unwrap(), 1e-3, "held out");
        }
        let message =
            |teacher: &str, recipe: &Recipe| open(teacher, recipe).err().expect("another's").to_string();
        assert!(message("another", &recipe).contains("expected the teacher of this run"));
        let other = bench.recipe(&text.replace("seed = 3", "seed = 4"));
        assert!(message("golden", &other).contains("expected the views"));
        // The rest of the recipe may differ.
        assert!(open("golden", &bench.recipe(&text.replace("1e-3", "2e-3"))).is_ok());
    }
}
