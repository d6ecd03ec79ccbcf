//! The program as its users call it: outputs that other readers understand, one clear line for every mistake, exit
//! codes, and no partial files.

mod common;

use std::path::{Path, PathBuf};

use common::{fails, files, media, program, succeeds};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

#[test]
fn one_image_becomes_a_safetensors_file_with_taps() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("cat.safetensors");
    let layers = "2,-1:norm,5:key,cls-attention";
    let cat = media("cat.jpg");
    let words =
        ["run", "--input", &cat, "--size", "112", "--layers", layers, "--output", output.to_str().unwrap()];
    succeeds(&words);
    let bytes = std::fs::read(&output).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // The photograph is 451x300: a short side of 112 makes the long one 168.4, nearest multiple of 14: 168.
    let tokens = 1 + 8 * 12;
    for (name, shape) in [
        ("cls", vec![384]),
        ("patches", vec![8, 12, 384]),
        ("layer2", vec![tokens, 384]),
        ("layer11_norm", vec![tokens, 384]),
        ("layer5_key", vec![tokens, 384]),
        ("cls_attention", vec![6, tokens]),
    ] {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, shape.as_slice()), "{name}");
    }
    let values = |name: &str| -> Vec<f32> {
        let data = file.tensor(name).unwrap().data().to_vec();
        data.chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect()
    };
    assert_eq!(values("layer11_norm")[384..], values("patches")[..], "the last layer, normed, is the result");
    for head in values("cls_attention").chunks_exact(tokens) {
        assert!((head.iter().sum::<f32>() - 1.0).abs() < 1e-5, "softmax");
    }
    assert_eq!(files(folder.path()), [output], "no temporary file stays");
}

#[test]
fn folders_and_clips_become_one_file_per_frame() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let (photos, clip) = (media(""), media("cat.mjpeg"));
    let out = output.to_str().unwrap();
    let words =
        ["run", "--input", &photos, &clip, "--size", "56", "--frames", "5", "--output", out, "--json"];
    let stdout = succeeds(&words);
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["frame"], index);
        assert!(line["latency_ms"]["extract"].as_f64().unwrap() > 0.0);
        assert!(Path::new(line["output"].as_str().unwrap()).is_file());
    }
    assert_eq!(files(&output).len(), 5);
}

#[test]
fn a_picture_and_an_array_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let (picture, array) = (folder.path().join("a.png"), folder.path().join("a.npy"));
    for output in [&picture, &array] {
        let words = [
            "run",
            "--input",
            "test:70x56",
            "--frames",
            "1",
            "--size",
            "native",
            "-o",
            output.to_str().unwrap(),
        ];
        succeeds(&words);
    }
    assert_eq!(std::fs::read(&picture).unwrap()[..8], *b"\x89PNG\r\n\x1a\n");
    let array = std::fs::read(&array).unwrap();
    let header_len = usize::from(u16::from_le_bytes([array[8], array[9]]));
    let header = std::str::from_utf8(&array[10..10 + header_len]).unwrap();
    assert!(array.starts_with(b"\x93NUMPY\x01\x00") && header.contains("(4, 5, 384)"), "{header}");
    assert_eq!(array.len(), 10 + header_len + 4 * 5 * 384 * 4);
}

#[test]
fn thread_counts_give_the_same_features() {
    let folder = tempfile::tempdir().unwrap();
    let features = |threads: &str| {
        let output = folder.path().join(format!("{threads}.npy"));
        let cat = media("cat.jpg");
        succeeds(&[
            "run",
            "--input",
            &cat,
            "--size",
            "98",
            "--threads",
            threads,
            "-o",
            output.to_str().unwrap(),
        ]);
        std::fs::read(output).unwrap()
    };
    let one = features("1");
    assert!(features("2") == one && features("5") == one);
}

#[test]
fn a_checkpoint_is_converted_inspected_compared_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden/official/model.pth");
    let source = source.to_string_lossy();
    let exact = path("exact.safetensors");
    succeeds(&["convert", &source, "-o", &exact, "--heads", "1"]);
    let small = path("small.safetensors");
    succeeds(&["convert", &exact, "-o", &small, "--storage", "int8"]);
    assert!(succeeds(&["inspect", &small]).contains("int8"));
    let spec: Value = serde_json::from_str(&succeeds(&["inspect", &exact, "--json"])).unwrap();
    assert_eq!(spec["spec"]["heads"], 1);
    let (cat, reference, candidate) =
        (media("cat.jpg"), format!("{exact}:cpu:f32"), format!("{small}:cpu:f32"));
    let words =
        ["compare", &cat, "--reference", &reference, "--candidate", &candidate, "--size", "56", "--json"];
    let report: Value = serde_json::from_str(&succeeds(&words)).unwrap();
    let median = report["patch_cosine"]["median"].as_f64().unwrap();
    assert!(median > 0.99 && median < 1.0, "{report}");
    succeeds(&["export", &exact, "-o", &path("model.onnx"), "--size", "56"]);
    assert!(std::fs::metadata(path("model.onnx")).unwrap().len() > 10_000);
}

/// Photographs and label maps in train, trainannot, val and valannot: crops of the sample photographs, whose class is
/// whether a pixel's half of the picture is the left (0), the right (1) or its last column (200).
fn labelled_folders(folder: &Path) -> String {
    let io = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dinov2-io/tests/fixtures");
    for (set, photographs) in
        [("train", &["photo_98x70.png", "photo_196x154.png"][..]), ("val", &["photo_151x70.png"])]
    {
        let annotations = folder.join(format!("{set}annot"));
        std::fs::create_dir_all(folder.join(set)).unwrap();
        std::fs::create_dir_all(&annotations).unwrap();
        for name in photographs {
            std::fs::copy(io.join(name), folder.join(set).join(name)).unwrap();
            let (width, height) = name[6..name.len() - 4].split_once('x').unwrap();
            write_labels(
                &annotations.join(name),
                width.parse().unwrap(),
                height.parse().unwrap(),
                |x, width| {
                    if x + 1 == width { 200 } else { u8::from(x >= width / 2) }
                },
            );
        }
    }
    folder.to_string_lossy().into_owned()
}

fn write_labels(path: &Path, width: u32, height: u32, class: impl Fn(u32, u32) -> u8) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..height).flat_map(|_| (0..width).map(|x| class(x, width))).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
}

#[test]
fn a_linear_probe_is_trained_and_scored() {
    let folder = tempfile::tempdir().unwrap();
    let data = labelled_folders(folder.path());
    let words = ["eval", "segmentation", "--data", &data, "--ignore", "200", "--size", "70"];
    let engines = ["--precision", "f32", "--candidate", "cpu:f32", "--json"];
    let report: Value = serde_json::from_str(&succeeds(&[&words[..], &engines].concat())).unwrap();
    assert_eq!(report["classes"], 2);
    assert_eq!(report["train"]["patches"], 5 * 7 + 5 * 6);
    assert_eq!(report["val"]["pixels"], 150 * 70);
    let scores = report["scores"].as_array().unwrap();
    assert_eq!(scores.len(), 3, "{report}");
    // Position is in the features, so the halves of a photograph are told apart, if not to the pixel.
    let [accuracy, iou] = ["pixel_accuracy", "mean_iou"].map(|key| scores[0][key].as_f64().unwrap());
    assert!(accuracy > 0.8 && iou > 0.6 && iou < accuracy, "{report}");
    let classes: f64 =
        scores[0]["class_iou"].as_array().unwrap().iter().map(|iou| iou.as_f64().unwrap()).sum();
    assert!((classes / 2.0 - iou).abs() < 1e-9, "{report}");
    // The candidate is the same engine: its own probe and the first one's give the same.
    for score in &scores[1..] {
        assert_eq!((&score["mean_iou"], &score["probe"]), (&scores[0]["mean_iou"], &Value::from("cpu:f32")));
    }
    let parts = ["train", "val"].map(|set| format!("{data}/{set},{data}/{set}annot"));
    let words = [
        "eval",
        "segmentation",
        "--train",
        &parts[0],
        "--val",
        &parts[1],
        "--ignore",
        "200",
        "--size",
        "native",
    ];
    let text = succeeds(&words);
    // Of 151x70 pixels, 140x70 make whole patches.
    assert!(text.contains("scored on 1 images (9800 pixels)"), "{text}");
}

#[test]
fn label_maps_that_do_not_fit_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = labelled_folders(folder.path());
    let at = |name: &str| folder.path().join(name);
    let judge = |more: &[&str], told: &str| {
        fails(&[&["eval", "segmentation", "--data", &data, "--size", "70"], more].concat(), 1, told);
    };
    judge(&["--ignore", "200", "--classes", "2", "--candidate", "no-such-model:cpu:f32"], "no-such-model");
    judge(&["--classes", "150"], "label: expected less than 150, got 200 at column 97, row 0");
    let label = at("valannot/photo_151x70.png");
    write_labels(&label, 151, 70, |_, _| 2);
    judge(&["--ignore", "200"], "label: expected less than 2, got 2 at column 0, row 0");
    judge(&["--ignore", "2"], "val: expected labelled pixels");
    write_labels(&label, 150, 70, |_, _| 1);
    judge(&["--ignore", "200"], "expected labels of 151x70 as the image, got 150x70");
    std::fs::copy(at("val/photo_151x70.png"), &label).unwrap();
    judge(&["--ignore", "200"], "Rgb of 8 bits");
    std::fs::rename(&label, at("valannot/other.png")).unwrap();
    judge(&["--ignore", "200"], "expected an annotation \"photo_151x70\", got none");
    std::fs::remove_file(at("trainannot/photo_98x70.png")).unwrap();
    judge(&["--ignore", "200"], "got 2 images and 1 annotations");
    std::fs::remove_dir_all(at("val")).unwrap();
    std::fs::create_dir(at("val")).unwrap();
    std::fs::remove_file(at("train/photo_98x70.png")).unwrap();
    judge(&["--ignore", "200"], "val images: input: expected a folder with images");
    std::fs::remove_dir(at("val")).unwrap();
    judge(&["--ignore", "200"], "val images: cannot read");
}

#[test]
fn bench_tells_its_figures_on_the_last_line() {
    let stdout = succeeds(&[
        "bench",
        "--size",
        "56",
        "--iterations",
        "3",
        "--warmup",
        "1",
        "--threads",
        "1",
        "--json",
    ]);
    let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let latency = |key: &str| report["latency_ms"][key].as_f64().unwrap();
    assert!(
        0.0 < latency("min") && latency("min") <= latency("median") && latency("median") <= latency("p95")
    );
    assert!(report["stage_ms"]["mlp"]["median"].as_f64().unwrap() > 0.0);
    assert!(report["peak_memory_mib"].as_f64().unwrap() > 20.0);
}

#[test]
fn a_video_is_run_incrementally() {
    let cat = media("cat.jpg");
    let words = ["run", "--input", &cat, &cat, &cat, "--size", "56", "--json", "--incremental"];
    let shares = |refresh: &str| -> Vec<f64> {
        let lines = succeeds(&[&words[..], &["0.05", "--refresh", refresh]].concat());
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["recomputed"].as_f64().unwrap()).collect()
    };
    assert_eq!(shares("30"), [1.0, 0.0, 0.0]);
    assert_eq!(shares("2"), [1.0, 0.0, 1.0]);
    let compared = succeeds(&[
        "compare",
        &cat,
        &cat,
        "--size",
        "56",
        "--candidate",
        "cpu:f32",
        "--incremental",
        "0",
        "--json",
    ]);
    let compared: Value = serde_json::from_str(compared.trim()).unwrap();
    assert_eq!((&compared["recomputed"], &compared["relative_l2"]), (&Value::from(0.5), &Value::from(0.0)));
    fails(&["run", "--input", &cat, "--incremental", "nan"], 2, "expected a number, 0 or larger");
    fails(&["run", "--input", &cat, "--refresh", "3"], 2, "required arguments");
}

#[test]
fn bench_sets_stages_beside_the_peaks() {
    let words =
        ["bench", "--size", "56", "--iterations", "3", "--threads", "2", "--precision", "f32", "--peak"];
    let stdout = succeeds(&[&words[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let peak = &report["peak"]["all_threads"];
    assert_eq!(peak["threads"], 2);
    for stage in ["qkv", "attention", "projection", "mlp"] {
        let rate = &report["stage_rate"][stage];
        let share = rate["gflops"].as_f64().unwrap() / peak["f32_gflops"].as_f64().unwrap();
        assert!((rate["share_of_peak"].as_f64().unwrap() - share).abs() < 1e-3, "{stage}: {rate}");
        // 2 * 17 tokens * 12 blocks * 3 * 384^2 in the time of the stage; the report rounds both.
        if stage == "qkv" {
            let seconds = report["stage_ms"]["qkv"]["median"].as_f64().unwrap() * 1e-3;
            let gflops = 2.0 * 17.0 * 12.0 * 3.0 * 384.0 * 384.0 / seconds * 1e-9;
            assert!((rate["gflops"].as_f64().unwrap() / gflops - 1.0).abs() < 0.01, "{rate} {gflops}");
        }
    }
    assert!(report["stage_rate"].get("layer_norm").is_none());
    assert!(succeeds(&words).contains("of peak"));
}

/// Against the kernel itself: what `taskset` grants is what is counted.
#[cfg(target_os = "linux")]
#[test]
fn doctor_shows_the_reckoning_of_threads() {
    let whole = program(&["doctor", "--json"]);
    let mut pinned = std::process::Command::new("taskset");
    pinned.args(["-c", "0"]).arg(whole.get_program()).args(whole.get_args());
    let output = pinned.env("DINOV2_EDGE_MODELS", "no-such-folder").output().expect("util-linux");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let threads = report["threads"].as_str().unwrap();
    assert!(threads.starts_with("1 thread: 1 CPU granted on 1 core"), "{threads}");
    assert!(report["engine"].as_str().unwrap().ends_with(" 1 thread"), "{report}");
}

#[test]
fn doctor_and_models_answer() {
    let report: Value = serde_json::from_str(&succeeds(&["doctor", "--json"])).unwrap();
    assert_eq!(report["shape"], "ViT-S/14");
    assert!(succeeds(&["models"]).contains("dinov2-giant"));
}

#[test]
fn mistakes_of_usage_exit_with_2() {
    let cat = media("cat.jpg");
    for (words, told) in [
        (&["run", "--input", &cat, "--size", "225x224"][..], "nearest are 224x224 and 238x224"),
        (&["run", "--input", &cat, "--size", "big"], "expected SHORT"),
        (&["run", "--input", &cat, "--layers", "12"], "expected less than 12, got 12"),
        (&["run", "--input", &cat, "--layers", "1:keys"], "1:keys"),
        (&["run", "--input", &cat, "-o", "features.doc"], "features.doc"),
        (&["run", "--input", &cat, "--threads", "0"], "1..=1024"),
        (&["run", "--input", &cat, "--precision", "int3"], "int3"),
        (&["run", "--input", "-", "--raw-size", "0x5"], "0x5"),
        (&["compare", &cat, "--candidate", "gpu:f32"], "gpu"),
        (&["bench", "--iterations", "0"], "0"),
        (&["eval", "segmentation"], "expected either --data DIR or both --train and --val"),
        (&["eval", "segmentation", "--train", "a,b"], "expected either --data DIR"),
        (&["eval", "segmentation", "--data", "a", "--val", "a,b"], "expected either --data DIR"),
        (&["eval", "segmentation", "--train", "a", "--val", "a,b"], "IMAGES,ANNOTATIONS"),
        (&["eval", "segmentation", "--data", ".", "--classes", "1"], "2..=256"),
        (&["eval", "segmentation", "--data", ".", "--l2", "0"], "expected a positive number"),
        (&["eval", "segmentation", "--data", ".", "--candidate", "gpu:f32"], "gpu"),
        (&["frobnicate"], "frobnicate"),
    ] {
        fails(words, 2, told);
    }
}

#[test]
fn bad_files_exit_with_1_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let cut = path("cut.jpg");
    std::fs::write(&cut, &std::fs::read(media("cat.jpg")).unwrap()[..3000]).unwrap();
    let text = path("text.safetensors");
    std::fs::write(&text, "not a model, just some text that is long enough for a header").unwrap();
    let (out, cat) = (path("out.safetensors"), media("cat.jpg"));
    for (words, told) in [
        (&["run", "--input", "no-such-photo.jpg"][..], "no-such-photo.jpg"),
        (&["run", "--input", &cut, "-o", &out], "cut.jpg"),
        (&["run", "--input", &cat, "-o", "no-such-folder/out.npy"], "no-such-folder"),
        (&["run", "--input", &cat, "--model", &text], "text.safetensors"),
        (&["run", "--input", &cat, "--model", "no-such-model"], "no-such-model"),
        (&["run", "--input", &cat, "--model", "some.pth"], "dinov2-edge convert"),
        (&["convert", &text, "-o", &out], "text.safetensors"),
        (&["convert", "no-such-file.pth", "-o", &out], "no-such-file.pth"),
        (&["inspect", &text], "text.safetensors"),
        (&["compare", folder.path().to_str().unwrap(), "--candidate", "cpu:f32", "--frames", "1"], "cut.jpg"),
    ] {
        let code = if told == "no-such-folder" { 2 } else { 1 };
        fails(words, code, told);
    }
    assert_eq!(files(folder.path()), [PathBuf::from(&cut), PathBuf::from(&text)]);
}
