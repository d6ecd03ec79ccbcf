//! Every task of `eval` with the bundled model, on drawn pictures whose truth is known.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use dinov2_io::{PairedImages, Size};
use training::eval::{
    ClassFolders, Classification, Depth, Fidelity, Judged, Latency, Measure, ModelChoice, Pictures,
    Robustness, Segmentation, Sequences,
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/vits14-focus-int8.safetensors");

fn load(precision: &str) -> Judged {
    format!("{MODEL}:{precision}").parse::<ModelChoice>().unwrap().load(None).unwrap()
}

fn value(measures: &[Measure], name: &str) -> f64 {
    let found = measures.iter().find(|measure| measure.name == name);
    found.unwrap_or_else(|| panic!("{name} among {measures:?}")).value
}

fn write_png(
    path: &Path,
    (width, height): (usize, usize),
    color: png::ColorType,
    depth: png::BitDepth,
    bytes: &[u8],
) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(File::create(path).unwrap(), width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(depth);
    encoder.write_header().unwrap().write_image_data(bytes).unwrap();
}

/// A picture of what `texture` says of every pixel: 0 for grey cloth, 1 for orange stripes.
fn draw(path: &Path, (width, height): (usize, usize), shift: usize, texture: impl Fn(usize, usize) -> u8) {
    let mut pixels = Vec::with_capacity(width * height * 3);
    for index in 0..width * height {
        let (x, y) = (index % width, index / width);
        pixels.extend(match texture(x, y) {
            0 => [90 + ((x * 7 + y * 13 + shift * 5) % 23) as u8; 3],
            _ if (x + y + shift) % 8 < 4 => [250, 140, 20],
            _ => [120, 20, 10],
        });
    }
    write_png(path, (width, height), png::ColorType::Rgb, png::BitDepth::Eight, &pixels);
}

fn write_labels(path: &Path, (width, height): (usize, usize), label: impl Fn(usize, usize) -> u8) {
    let pixels: Vec<u8> = (0..width * height).map(|index| label(index % width, index / width)).collect();
    write_png(path, (width, height), png::ColorType::Grayscale, png::BitDepth::Eight, &pixels);
}

/// `count` pictures of 112 x 84 in NAME, left of a boundary that wanders cloth, right of it stripes; and the boundaries.
fn halves(folder: &Path, name: &str, count: usize) -> Vec<(PathBuf, usize)> {
    let pictures = (0..count).map(|number| {
        let boundary = 28 + number * 17 % 57;
        let path = folder.join(name).join(format!("{number}.png"));
        draw(&path, (112, 84), number, |x, _| u8::from(x >= boundary));
        (PathBuf::from(format!("{number}.png")), boundary)
    });
    pictures.collect()
}

#[test]
fn a_thing_that_moves_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, labels) = (folder.path().join("frames"), folder.path().join("labels"));
    let size = (168, 112);
    for number in 0..7 {
        // Five frames of the thing at other places, and one of nothing but cloth to the right of it.
        let inside = |x: usize, y: usize| {
            let left = 14 + number * 9;
            u8::from((left..left + 56).contains(&x) && (28..84).contains(&y))
        };
        draw(&frames.join(format!("walk/{number}.png")), size, 0, inside);
        write_labels(&labels.join(format!("walk/{number}.png")), size, inside);
    }
    let open = || Sequences::open(&frames, &labels, Some(0), 255, Size::Native);
    let measures = open().unwrap().judge(&mut load("int8")).unwrap();
    let [both, region, boundary] = ["J&F", "J", "F"].map(|name| value(&measures, name));
    // A mask that stays where it was would have a J of 0.4 on the mean of these frames.
    assert!(region > 0.75 && region < 1.0, "{measures:?}");
    assert!((both - (region + boundary) / 2.0).abs() < 1e-12 && boundary > 0.2, "{measures:?}");

    for number in 2..7 {
        fs::remove_file(frames.join(format!("walk/{number}.png"))).unwrap();
    }
    assert!(open().unwrap_err().to_string().contains("expected as many annotations as images"));
    for number in 2..7 {
        fs::remove_file(labels.join(format!("walk/{number}.png"))).unwrap();
    }
    assert!(open().unwrap_err().to_string().contains("expected sequences of at least 3 frames, got 2"));
}

#[test]
fn textures_are_segmented_and_their_distance_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (set, count) in [("train", 8), ("val", 3)] {
        for (name, boundary) in halves(folder.path(), set, count) {
            write_labels(&at(&format!("{set}annot")).join(&name), (112, 84), |x, _| u8::from(x >= boundary));
            // Cloth at one metre, stripes at four; of the upper rows nothing is known.
            let millimetres = |x: usize, y: usize| match (y < 20, x < boundary) {
                (true, _) => 0_u16,
                (false, true) => 1_000,
                (false, false) => 4_000,
            };
            let bytes: Vec<u8> =
                (0..112 * 84).flat_map(|index| millimetres(index % 112, index / 112).to_be_bytes()).collect();
            let path = at(&format!("{set}depth")).join(&name);
            write_png(&path, (112, 84), png::ColorType::Grayscale, png::BitDepth::Sixteen, &bytes);
        }
    }
    let pairs = |set: &str, kind: &str| PairedImages::open(&at(set), &at(&format!("{set}{kind}"))).unwrap();
    let mut judged = load("int8");

    let segmentation =
        Segmentation::new(pairs("train", "annot"), pairs("val", "annot"), 255, Size::Native).unwrap();
    let measures = segmentation.judge(&mut judged).unwrap();
    assert!(value(&measures, "mIoU") > 0.85 && value(&measures, "pixel accuracy") > 0.9, "{measures:?}");

    let depth = Depth {
        train: pairs("train", "depth"),
        val: pairs("val", "depth"),
        unit_m: 0.001,
        size: Size::Native,
    };
    let measures = depth.judge(&mut judged).unwrap();
    // Without looking at the picture nothing is better than 1.5 m.
    assert!(value(&measures, "RMSE") < 0.6, "{measures:?}");
    assert!(value(&measures, "within a factor of 1.25") > 0.8, "{measures:?}");

    fs::copy(at("valannot/0.png"), at("valdepth/0.png")).unwrap();
    let error = depth.judge(&mut judged).unwrap_err().to_string();
    assert!(error.contains("expected a grey PNG of 16 bits, got Grayscale of 8 bits in "), "{error}");
    write_labels(&at("valannot/0.png"), (112, 84), |_, _| 7);
    let error =
        Segmentation::new(pairs("train", "annot"), pairs("val", "annot"), 255, Size::Native).unwrap_err();
    assert!(error.to_string().contains("label: expected less than 2, got 7"), "{error}");
}

#[test]
fn classes_are_found_and_a_broken_picture_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    for (class, texture) in [("cloth", 0), ("stripes", 1)] {
        for number in 0..12 {
            let path = folder.path().join(class).join(format!("{number}.png"));
            draw(&path, (56, 56), number, |x, y| {
                if (x / 14 + y / 14 + number) % 5 == 0 { 1 - texture } else { texture }
            });
        }
    }
    fs::write(folder.path().join("cloth/broken.png"), "no picture").unwrap();
    let train = ClassFolders::open(folder.path()).unwrap();
    let classification = Classification { train: train.clone(), val: None, size: Size::Native };
    let mut judged = load("int8");
    let seen = classification.embed(&mut judged).unwrap();
    let measures = classification.judge(&seen, &mut judged).unwrap();
    for name in ["kNN, k = 10", "kNN, k = 20", "linear probe"] {
        // With k = 20 nearly all other pictures vote, and there are more of the other class than of the own.
        let least = if name == "kNN, k = 20" { 0.0 } else { 0.9 };
        assert!(value(&measures, name) >= least, "{measures:?}");
    }
    let apart = Classification { val: Some(train.clone()), ..classification };
    assert_eq!(
        value(&apart.judge(&seen, &mut judged).unwrap(), "kNN, k = 10"),
        1.0,
        "of a picture that is in the bank"
    );

    let robustness = Robustness { pictures: Pictures::Classes(train.clone()), count: 1, size: Size::Native };
    let measures = robustness.judge(&mut judged, Some(&seen)).unwrap();
    assert_eq!(measures.len(), 1 + 10 + 2 + 10);
    assert!(measures.iter().all(|measure| (-1.0..=1.0).contains(&measure.value)), "{measures:?}");
    let pixelate = value(&measures, "patch cosine, pixelate");
    assert!((0.05..0.9999).contains(&pixelate), "{measures:?}");
    assert_eq!(robustness.judge(&mut judged, Some(&seen)).unwrap(), measures, "the same every time");

    let other = tempfile::tempdir().unwrap();
    for class in ["cloth", "wood"] {
        draw(&other.path().join(class).join("0.png"), (56, 56), 0, |_, _| 0);
    }
    let error = ClassFolders::open_as(other.path(), &train).unwrap_err().to_string();
    assert!(error.contains("expected those of the training images, got \"wood\""), "{error}");
    let error = ClassFolders::open(&other.path().join("wood")).unwrap_err().to_string();
    assert!(error.contains("folders of images, one per class, got 0"), "{error}");
}

#[test]
fn a_model_is_itself_and_int8_is_nearly_f32() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<PathBuf> = halves(folder.path(), "images", 2)
        .into_iter()
        .map(|(name, _)| folder.path().join("images").join(name))
        .collect();
    let fidelity = Fidelity { images, sizes: vec![Size::Short(56)] };
    let (mut exact, mut student) = (load("f32"), load("int8"));
    let own = fidelity.judge(&mut exact, &mut load("f32")).unwrap();
    assert!(own.iter().all(|measure| (measure.value - 1.0).abs() < 1e-6), "{own:?}");
    let measures = fidelity.judge(&mut exact, &mut student).unwrap();
    let median = value(&measures, "patch cosine, median");
    assert!((0.98..1.0).contains(&median), "{measures:?}");
    assert!(value(&measures, "patch cosine, 5th percentile") <= median, "{measures:?}");
    assert!((0.95..1.0).contains(&value(&measures, "linear CKA of patches")), "{measures:?}");

    let latency = Latency { sizes: vec![Size::Short(28)], rounds: 2 };
    let measures = latency.judge(&mut [exact, student]).unwrap();
    assert_eq!(value(&measures[0], "ratio to the first"), 1.0);
    assert!(measures.iter().all(|of_model| value(of_model, "median") > 0.0), "{measures:?}");
}

#[test]
fn the_command_writes_a_table() {
    let folder = tempfile::tempdir().unwrap();
    halves(folder.path(), "images", 2);
    let (images, out) = (folder.path().join("images"), folder.path().join("out"));
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
        command
            .arg("eval")
            .args(words)
            .arg("--images")
            .arg(&images)
            .arg("--output")
            .arg(&out)
            .output()
            .unwrap()
    };
    let models = [&format!("{MODEL}:f32"), &format!("{MODEL}:int8")];
    let settings = ["--fidelity-size", "28", "--latency", "28", "--rounds", "1", "--json"];
    let output = run(&[&["--teacher", models[0], "--model", models[1]][..], &settings].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["models"][0]["precision"], "f32");
    assert_eq!(report["models"][1]["precision"], "int8");
    let row = |measure: &str| {
        let rows = report["rows"].as_array().unwrap();
        rows.iter().find(|row| row["measure"] == measure).unwrap_or_else(|| panic!("{measure} in {report}"))
    };
    assert!(row("patch cosine, median")["values"][0].is_null(), "a teacher is not compared with itself");
    assert!(row("patch cosine, median")["values"][1].as_f64() > Some(0.98), "{report}");
    assert_eq!(row("ratio to the first")["values"][0], 1.0);
    let text = fs::read_to_string(out.join("eval.md")).unwrap();
    assert!(text.contains("| fidelity 28 | patch cosine, median | – | 0."), "{text}");
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("eval.json")).unwrap()).unwrap();
    assert_eq!(written, report);

    for (words, told) in [
        (&["--model", "no-such-file"][..], "expected something to measure"),
        (&["--model", "no-such-file", "--latency", "28"], "no-such-file"),
        (&["--model", models[1], "--teacher", models[0], "--fidelity-size", "15x15"], "15x15"),
        (&["--model", models[1], "--sequences", "a"], "expected --sequences FRAMES,LABELS, got a"),
    ] {
        let output = run(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(told), "{words:?}: {error}");
    }
}
