//! Metrics on disk, of runs that are resumed and killed.

use std::fs;

use prost::Message;

use super::messages::{Content, Event, What};
use super::records::read_record;
use super::*;

/// The lines of `metrics.jsonl` without their times.
fn lines(folder: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let parse = |line| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value.as_object_mut().unwrap().remove("unix_s").unwrap().as_f64() > Some(1.7e9));
        value
    };
    text.lines().map(parse).collect()
}

/// Step, name and number of every scalar in the event files; pictures have the number of their bytes.
fn events(folder: &Path) -> Vec<(i64, String, f32)> {
    let mut files: Vec<_> =
        fs::read_dir(folder.join("tensorboard")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut found, mut content) = (Vec::new(), Vec::new());
    for file in files {
        let bytes = fs::read(file).unwrap();
        let mut rest = &bytes[..];
        while read_record(&mut rest, &mut content).unwrap().is_some() {
            let event = Event::decode(&content[..]).unwrap();
            let Some(What::Summary(summary)) = event.what else { continue };
            for value in summary.value {
                let number = match value.content.unwrap() {
                    Content::SimpleValue(number) => number,
                    Content::Image(image) => image.encoded_image_string.len() as f32,
                };
                found.push((event.step, value.tag, number));
            }
        }
        assert!(rest.is_empty(), "a file of whole records");
    }
    found
}

fn tell(metrics: &mut Metrics, steps: std::ops::RangeInclusive<u64>) {
    for step in steps {
        metrics.scalar(step, "loss", 1.0 / step as f64).unwrap();
        metrics.scalar(step, "learning_rate", step as f64).unwrap();
        metrics.flush(step).unwrap();
    }
}

fn tiny_png() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, 2, 1).write_header().unwrap();
    writer.write_image_data(&[7, 9]).unwrap();
    drop(writer);
    file
}

#[test]
fn what_is_told_is_there_after_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = Metrics::create(folder.path(), None).unwrap();
    metrics.scalar(1, "loss", 3.0).unwrap();
    metrics.scalar(1, "loss", 0.5).unwrap();
    metrics.scalar(1, "gradient/norm", f64::NAN).unwrap();
    // A later step writes the one before.
    metrics.scalar(4, "loss", 0.25).unwrap();
    let png = tiny_png();
    metrics.image(4, "pca/sheet", &png).unwrap();
    metrics.flush(4).unwrap();
    let expected = [
        serde_json::json!({ "step": 1, "loss": 0.5, "gradient/norm": null }),
        serde_json::json!({ "step": 4, "loss": 0.25 }),
    ];
    assert_eq!(lines(folder.path()), expected);
    let found = events(folder.path());
    assert_eq!(found[0], (1, "loss".into(), 0.5));
    assert!(found[1].1 == "gradient/norm" && found[1].2.is_nan());
    assert!(found[2..].contains(&(4, "loss".into(), 0.25)));
    assert!(found[2..].contains(&(4, "pca/sheet".into(), png.len() as f32)));
    assert_eq!(fs::read(folder.path().join("pictures/pca_sheet-00000004.png")).unwrap(), png);
}

#[test]
fn a_resumed_run_reads_as_if_it_had_not_been_interrupted() {
    let (whole, resumed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tell(&mut Metrics::create(whole.path(), None).unwrap(), 1..=9);
    tell(&mut Metrics::create(resumed.path(), None).unwrap(), 1..=7);
    tell(&mut Metrics::create(resumed.path(), Some(5)).unwrap(), 6..=8);
    tell(&mut Metrics::create(resumed.path(), Some(5)).unwrap(), 6..=9);
    assert_eq!(lines(resumed.path()), lines(whole.path()));
    assert_eq!(events(resumed.path()), events(whole.path()));
}

#[test]
fn entries_that_a_kill_cut_short_are_removed() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tell(&mut Metrics::create(whole.path(), None).unwrap(), 1..=4);
    tell(&mut Metrics::create(cut.path(), None).unwrap(), 1..=3);
    let event_file = fs::read_dir(cut.path().join("tensorboard")).unwrap().next().unwrap().unwrap().path();
    for file in [cut.path().join("metrics.jsonl"), event_file] {
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    }
    tell(&mut Metrics::create(cut.path(), Some(2)).unwrap(), 3..=4);
    assert_eq!(lines(cut.path()), lines(whole.path()));
    assert_eq!(events(cut.path()), events(whole.path()));
}

#[test]
fn what_cannot_be_told_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut metrics = Metrics::create(folder.path(), None).unwrap();
    tell(&mut metrics, 3..=3);
    assert!(matches!(metrics.scalar(2, "loss", 0.0), Err(MetricsError::Step { least: 3, got: 2 })));
    for name in ["", "step", "a\nb", "../../x", "ü"] {
        assert!(matches!(metrics.scalar(3, name, 0.0), Err(MetricsError::Name { .. })), "{name}");
    }
    assert!(matches!(metrics.image(3, "sheet", b"no PNG"), Err(MetricsError::Picture { .. })));
    assert!(matches!(Metrics::create(folder.path(), None), Err(MetricsError::Exists { .. })));

    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("metrics.jsonl");
    fs::write(&file, "{\"step\":1}\nnot ours\n").unwrap();
    let error = Metrics::create(other.path(), Some(9)).unwrap_err().to_string();
    let expected = format!(
        r#"metrics: expected a JSON object with a step, got "not ours\n" in line 2 of {}"#,
        file.display()
    );
    assert_eq!(error, expected);
    assert_eq!(fs::read(&file).unwrap(), b"{\"step\":1}\nnot ours\n", "a file of others is left as it is");
}
