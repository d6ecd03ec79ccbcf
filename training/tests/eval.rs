//! Every task of `eval` with the bundled model, on drawn images with known truth.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use dinov2_core::ImageView;
use dinov2_files::chain;
use dinov2_io::{JpegEncoder, Labels, PairedImages, Size};
use training::eval::{
    ClassFolders, Classification, Corruption, Depth, EvalError, Fidelity, Ignore, Latency, LoadedModel,
    Measure, ModelChoice, Pictures, Robustness, Segmentation, Sequences,
};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/vits14-focus-int8.safetensors");

fn load(precision: &str) -> LoadedModel {
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

/// Draws `texture` per pixel: 0 for grey cloth, 1 for orange stripes.
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

/// `halves`, with label maps in NAMEannot and depth maps in NAMEdepth.
fn labelled_halves(folder: &Path, set: &str, count: usize) {
    for (name, boundary) in halves(folder, set, count) {
        let at = |kind: &str| folder.join(format!("{set}{kind}")).join(&name);
        write_labels(&at("annot"), (112, 84), |x, _| u8::from(x >= boundary));
        // Cloth at one metre, stripes at four; the upper rows are unknown.
        let millimetres = |x: usize, y: usize| match (y < 20, x < boundary) {
            (true, _) => 0_u16,
            (false, true) => 1_000,
            (false, false) => 4_000,
        };
        let bytes: Vec<u8> =
            (0..112 * 84).flat_map(|index| millimetres(index % 112, index / 112).to_be_bytes()).collect();
        write_png(&at("depth"), (112, 84), png::ColorType::Grayscale, png::BitDepth::Sixteen, &bytes);
    }
}

/// The tasks of the sets of `labelled_halves`.
fn segmentation(folder: &Path) -> Result<Segmentation, EvalError> {
    Segmentation::new(pairs(folder, "train", "annot"), pairs(folder, "val", "annot"), 255, Size::Native)
}

fn depth(folder: &Path) -> Depth {
    let (train, val) = (pairs(folder, "train", "depth"), pairs(folder, "val", "depth"));
    Depth { train, val, unit_m: 0.001, size: Size::Native }
}

fn pairs(folder: &Path, set: &str, kind: &str) -> PairedImages {
    PairedImages::open(&folder.join(set), &folder.join(format!("{set}{kind}"))).unwrap()
}

/// Frames and labels/NAME of an object that moves to the right in front of cloth.
fn walk(folder: &Path, name: &str, count: usize) {
    for number in 0..count {
        let inside = |x: usize, y: usize| {
            let left = 14 + number * 9;
            u8::from((left..left + 56).contains(&x) && (28..84).contains(&y))
        };
        let at = |kind: &str| folder.join(format!("{kind}/{name}/{number}.png"));
        draw(&at("frames"), (168, 112), 0, inside);
        write_labels(&at("labels"), (168, 112), inside);
    }
}

fn cut_short(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_thing_that_moves_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, labels) = (folder.path().join("frames"), folder.path().join("labels"));
    walk(folder.path(), "walk", 7);
    let open = || Sequences::open(&frames, &labels, Some(0), Ignore::ByContent, Size::Native);
    let measures = open().unwrap().evaluate(&mut load("int8")).unwrap();
    let [both, region, boundary] = ["J&F", "J", "F"].map(|name| value(&measures, name));
    // A mask that does not move would have a mean J of 0.4.
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

/// Masks of DAVIS: 2016 has 0 and 255 for the one object, 2017 a number per object and 255 for ignored pixels.
#[test]
fn masks_of_davis_are_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, labels) = (folder.path().join("frames"), folder.path().join("labels"));
    let evaluate = |background, ignore| {
        let sequences = Sequences::open(&frames, &labels, background, ignore, Size::Native)?;
        sequences.evaluate(&mut load("int8"))
    };
    let message = |background, ignore| chain(&evaluate(background, ignore).unwrap_err());
    // The same object with another label.
    let relabel = |name: &str, of: &dyn Fn(u8, usize, usize) -> u8| {
        for number in 0..5 {
            let path = labels.join(format!("{name}/{number}.png"));
            let pixels = Labels::read(&path).unwrap().pixels;
            write_labels(&path, (168, 112), |x, y| of(pixels[y * 168 + x], x, y));
        }
    };
    walk(folder.path(), "walk", 5);
    let want = evaluate(Some(0), Ignore::ByContent).unwrap();
    relabel("walk", &|label, _, _| label * 255);
    assert_eq!(evaluate(Some(0), Ignore::ByContent).unwrap(), want);
    assert_eq!(evaluate(Some(0), Ignore::Nothing).unwrap(), want);
    let expected = "sequences: expected objects in the first frames, got labels 0 and 255; 0 is the background \
                    (--background); 255 does not count (--ignore)";
    assert_eq!(message(Some(0), Ignore::Label(255)), expected);
    relabel("walk", &|label, _, _| if label == 255 { 38 } else { label });
    assert_eq!(evaluate(Some(0), Ignore::ByContent).unwrap(), want, "numbers may be far apart");
    // With an ignored rim, the measures are those of the rest of the object.
    relabel("walk", &|label, _, y| if y >= 100 { 255 } else { label });
    let with_void = evaluate(Some(0), Ignore::ByContent).unwrap();
    assert!(value(&with_void, "J") > 0.75, "{with_void:?}");
    assert_eq!(evaluate(Some(0), Ignore::Label(255)).unwrap(), with_void);
    assert!(value(&evaluate(Some(0), Ignore::Nothing).unwrap(), "J") != value(&with_void, "J"));

    walk(folder.path(), "other", 5);
    relabel("other", &|label, _, _| label * 255);
    let message = message(Some(0), Ignore::ByContent);
    assert!(
        message.contains("expected --ignore 255 or --ignore none")
            && message.contains("labels 0, 38 and 255"),
        "{message}"
    );
    // Then the other sequence has no object, which is noted.
    let mut model = load("int8");
    let sequences = Sequences::open(&frames, &labels, Some(0), Ignore::Label(255), Size::Native).unwrap();
    assert_eq!(sequences.evaluate(&mut model).unwrap(), with_void);
    let note = "sequences: 1 of 2 without an object in the first frame, which do not count: other";
    assert!(model.take_notes().contains(&note.to_owned()));
}

#[test]
fn textures_are_segmented_and_their_distance_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    labelled_halves(folder.path(), "train", 8);
    labelled_halves(folder.path(), "val", 3);
    let mut model = load("int8");

    let measures = segmentation(folder.path()).unwrap().evaluate(&mut model).unwrap();
    assert!(value(&measures, "mIoU") > 0.85 && value(&measures, "pixel accuracy") > 0.9, "{measures:?}");

    let depth = depth(folder.path());
    let measures = depth.evaluate(&mut model).unwrap();
    // The best constant prediction has 1.5 m.
    assert!(value(&measures, "RMSE") < 0.6, "{measures:?}");
    assert!(value(&measures, "within a factor of 1.25") > 0.8, "{measures:?}");

    fs::copy(at("valannot/0.png"), at("valdepth/0.png")).unwrap();
    let error = chain(&depth.evaluate(&mut model).unwrap_err());
    assert!(error.contains("expected a grey PNG of 16 bits, got Grayscale of 8 bits"), "{error}");
    let refused = || chain(&segmentation(folder.path()).unwrap_err());
    for number in 0..8 {
        write_labels(
            &at(&format!("trainannot/{number}.png")),
            (112, 84),
            |x, _| if x < 50 { 0 } else { 255 },
        );
    }
    assert!(refused().contains("two classes at least, got label 0 alone"), "{}", refused());
    labelled_halves(folder.path(), "train", 8);
    write_labels(&at("valannot/0.png"), (112, 84), |_, _| 7);
    assert!(refused().contains("label: expected less than 2, got 7"), "{}", refused());
    write_labels(&at("valannot/0.png"), (84, 112), |_, _| 0);
    assert!(refused().contains("label map: expected 112x84 as the image, got 84x112 in "), "{}", refused());
    fs::copy(at("val/0.png"), at("valannot/0.png")).unwrap();
    assert!(refused().contains("class ids, got Rgb of 8 bits"), "{}", refused());
}

#[test]
fn pairs_that_cannot_be_read_are_left_out_and_noted() {
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, more) in [(&whole, 0), (&broken, 1)] {
        labelled_halves(folder.path(), "train", 4 + more);
        labelled_halves(folder.path(), "val", 2 + more);
    }
    // A training image, and validation maps.
    let at = |name: &str| broken.path().join(name);
    let pixels = vec![90; 112 * 84 * 3];
    let mut encoder = JpegEncoder::new(90);
    fs::write(at("train/4.jpg"), encoder.encode(ImageView::new(&pixels, 112, 84).unwrap()).unwrap()).unwrap();
    fs::remove_file(at("train/4.png")).unwrap();
    for name in ["train/4.jpg", "valannot/2.png", "valdepth/2.png"] {
        cut_short(&at(name));
    }
    let mut model = load("int8");
    let expected = segmentation(whole.path()).unwrap().evaluate(&mut model).unwrap();
    assert_eq!(model.take_notes(), [""; 0]);
    assert_eq!(segmentation(broken.path()).unwrap().evaluate(&mut model).unwrap(), expected);
    let notes = |task: &str| {
        [("1 of 5 training", "4.jpg"), ("1 of 3 validation", "2.png")]
            .map(|(pairs, name)| format!("{task}: {pairs} pairs could not be read and was left out: {name}"))
    };
    assert_eq!(model.take_notes(), notes("segmentation"));
    let expected = depth(whole.path()).evaluate(&mut model).unwrap();
    assert_eq!(depth(broken.path()).evaluate(&mut model).unwrap(), expected);
    assert_eq!(model.take_notes(), notes("depth"));

    for number in 0..2 {
        cut_short(&at(&format!("val/{number}.png")));
    }
    let errors =
        [segmentation(broken.path()).unwrap_err(), depth(broken.path()).evaluate(&mut model).unwrap_err()];
    for error in errors.map(|error| chain(&error)) {
        let expected = ": expected validation pairs that can be read, got none: cannot decode ";
        assert!(
            error.contains(expected) && error.contains("val/0.png: ") && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn a_sequence_that_cannot_be_read_is_left_out_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, labels) = (folder.path().join("frames"), folder.path().join("labels"));
    let open = || Sequences::open(&frames, &labels, Some(0), Ignore::ByContent, Size::Native).unwrap();
    let mut model = load("int8");
    walk(folder.path(), "whole", 3);
    let expected = open().evaluate(&mut model).unwrap();
    walk(folder.path(), "broken", 4);
    cut_short(&labels.join("broken/2.png"));
    assert_eq!(open().evaluate(&mut model).unwrap(), expected);
    let note = "sequences: 1 of 2 sequences could not be read and was left out: broken";
    let objects = "sequences: 1 objects";
    assert_eq!(model.take_notes(), [objects, note, objects]);

    cut_short(&frames.join("whole/1.png"));
    let error = chain(&open().evaluate(&mut model).unwrap_err());
    let message = "sequences: expected sequences that can be read, got none: cannot decode ";
    assert!(
        error.starts_with(message) && error.contains("2.png: label map: expected a whole PNG"),
        "{error}"
    );
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
    let mut model = load("int8");
    let seen = classification.embed(&mut model).unwrap();
    let note = "classes: 1 of 25 images could not be read and was left out: broken.png";
    assert_eq!(model.take_notes(), [note]);
    let measures = classification.evaluate(&seen, &mut model).unwrap();
    // With k = 20 nearly all other images vote, most of them of the other class.
    for name in ["kNN, k = 10", "linear probe"] {
        assert!(value(&measures, name) >= 0.9, "{measures:?}");
    }
    let apart = Classification { val: Some(train.clone()), ..classification };
    assert_eq!(
        value(&apart.evaluate(&seen, &mut model).unwrap(), "kNN, k = 10"),
        1.0,
        "of a picture that is in the bank"
    );

    let robustness = Robustness { pictures: Pictures::Classes(train.clone()), count: 1, size: Size::Native };
    let measures = robustness.evaluate(&mut model, Some(&seen)).unwrap();
    assert_eq!(measures.len(), 3 + 2 * Corruption::ALL.len());
    assert!(measures.iter().all(|measure| (-1.0..=1.0).contains(&measure.value)), "{measures:?}");
    let pixelate = value(&measures, "patch cosine, pixelate");
    assert!((0.05..0.9999).contains(&pixelate), "{measures:?}");
    assert_eq!(robustness.evaluate(&mut model, Some(&seen)).unwrap(), measures, "the same every time");

    let other = tempfile::tempdir().unwrap();
    for class in ["cloth", "wood"] {
        draw(&other.path().join(class).join("0.png"), (56, 56), 0, |_, _| 0);
    }
    let error = chain(&ClassFolders::open_as(other.path(), &train).unwrap_err());
    assert!(error.contains("expected those of the training images, got \"wood\""), "{error}");
    let error = chain(&ClassFolders::open(&other.path().join("wood")).unwrap_err());
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
    let own = fidelity.evaluate(&mut exact, &mut load("f32")).unwrap();
    assert!(own.iter().all(|measure| (measure.value - 1.0).abs() < 1e-6), "{own:?}");
    let measures = fidelity.evaluate(&mut exact, &mut student).unwrap();
    let median = value(&measures, "patch cosine, median");
    assert!((0.98..1.0).contains(&median), "{measures:?}");
    assert!((0.9..median).contains(&value(&measures, "patch cosine, 5th percentile")), "{measures:?}");
    assert!((0.95..1.0).contains(&value(&measures, "linear CKA of patches")), "{measures:?}");

    let latency = Latency { sizes: vec![Size::Short(28)], rounds: 2 };
    let measures = latency.evaluate(&mut [exact, student]).unwrap();
    assert_eq!(value(&measures[0], "ratio to the first"), 1.0);
    assert!(measures.iter().all(|of_model| value(of_model, "median") > 0.0), "{measures:?}");
}

#[test]
fn the_command_writes_a_table() {
    let folder = tempfile::tempdir().unwrap();
    halves(folder.path(), "images", 4);
    for number in [1, 3] {
        cut_short(&folder.path().join(format!("images/{number}.png")));
    }
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
    let note = "fidelity: 2 of 4 images could not be read and were left out: 1.png (+ 1 more)";
    assert!(text.contains(&format!("\n- {note}\n")), "{text}");
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("eval.json")).unwrap()).unwrap();
    assert_eq!(written, report);

    // A student with patches 1.5 times as large gets images 1.5 times as large.
    let larger = MODEL.replace("vits14", "vits21") + ":int8";
    let settings = ["--fidelity-size", "28", "--latency", "70", "--rounds", "1", "--json"];
    let output = run(&[&["--teacher", models[1], "--model", &larger][..], &settings].concat());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sides = report["rows"].as_array().unwrap().iter().filter(|row| row["unit"] == "pixels");
    let sides: Vec<_> = sides.map(|row| (row["task"].as_str().unwrap(), row["values"].clone())).collect();
    let json = |sides: [f64; 2]| serde_json::json!(sides);
    assert_eq!(sides, [("fidelity 28", json([28.0, 42.0])), ("latency 70", json([70.0, 63.0]))]);
    let text = fs::read_to_string(out.join("eval.md")).unwrap();
    assert!(text.contains("|  | short side of the images | 28 px | 42 px |"), "{text}");

    for (words, message) in [
        (&["--model", "no-such-file"][..], "expected something to measure"),
        (&["--model", "no-such-file", "--latency", "28"], "no-such-file"),
        (&["--model", models[1], "--teacher", models[0], "--fidelity-size", "15x15"], "15x15"),
        (&["--model", models[1], "--sequences", "a"], "expected --sequences FRAMES,LABELS, got a"),
    ] {
        let output = run(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(message), "{words:?}: {error}");
    }
}
