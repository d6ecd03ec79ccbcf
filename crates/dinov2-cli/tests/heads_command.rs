//! A head goes from the command line to every kind of output. `norm` is the head that shows it: its map can be computed from the features
//! of the same file.

mod common;

use std::fs;
use std::path::Path;

use common::{fails, media, succeeds};
use safetensors::SafeTensors;
use serde_json::{Value, json};

fn run(output: &Path, more: &[&str]) -> String {
    let cat = media("cat.jpg");
    let words =
        ["run", "--backend", "cpu", "--size", "112", "--input", &cat, "--output", output.to_str().unwrap()];
    succeeds(&[&words[..], more].concat())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().unwrap())).collect()
}

/// Lengths of the rows of `patches`, in f64.
fn lengths(patches: &[f32], dim: usize) -> Vec<f64> {
    let squares = |patch: &[f32]| patch.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>();
    patches.chunks_exact(dim).map(|patch| squares(patch).sqrt()).collect()
}

#[test]
fn outputs_are_in_lines_and_files_of_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);

    let line: Value = serde_json::from_str(&run(
        &at("cat.safetensors"),
        &["--head", "norm", "--head", "similarity:x=.5,y=.5", "--json"],
    ))
    .unwrap();
    let bytes = fs::read(at("cat.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor =
        |name: &str| (file.tensor(name).unwrap().shape().to_vec(), floats(file.tensor(name).unwrap().data()));
    let (shape, patches) = tensor("patches");
    let (norm_shape, norm) = tensor("head.norm");
    assert_eq!(norm_shape, shape[..2]);
    let expected = lengths(&patches, shape[2]);
    assert!(norm.iter().zip(&expected).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-4 * want));
    let told = &line["heads"]["norm"];
    assert_eq!(
        (&told["kind"], &told["grid"]),
        (&json!("map"), &json!({ "rows": shape[0], "cols": shape[1] }))
    );
    let most = expected.iter().copied().fold(0.0, f64::max);
    assert!((told["max"].as_f64().unwrap() - most).abs() < 1e-4 * most);

    // The patch in the middle is most similar to itself.
    let (_, similarity) = tensor("head.similarity");
    let middle = shape[0] / 2 * shape[1] + shape[1] / 2;
    assert!((similarity[middle] - 1.0).abs() < 1e-5, "{}", similarity[middle]);
    assert!(similarity.iter().all(|&value| value <= 1.0) && similarity.iter().any(|&value| value < 0.9));
    // What was not asked for is not there.
    assert!(file.tensor("head.pca").is_err());

    run(&at("cat.npy"), &["--head", "norm"]);
    let array = fs::read(at("cat.norm.npy")).unwrap();
    let header_bytes = usize::from(u16::from_le_bytes([array[8], array[9]]));
    let header = String::from_utf8(array[10..10 + header_bytes].to_vec()).unwrap();
    assert!(
        header.contains(&format!("'shape': ({}, {})", shape[0], shape[1])) && header.contains("'<f4'"),
        "{header}"
    );
    assert_eq!(floats(&array[10 + header_bytes..]), norm);

    // The image and a panel per output; without any head, that of `pca`.
    for (heads, panels) in [(&["--head", "norm", "--head", "pca"][..], 2), (&[], 1)] {
        run(&at("cat.png"), heads);
        let picture = png::Decoder::new(std::io::BufReader::new(fs::File::open(at("cat.png")).unwrap()))
            .read_info()
            .unwrap();
        let (width, height) = picture.info().size();
        assert_eq!((width as usize, height as usize), ((1 + panels) * 14 * shape[1], 14 * shape[0]));
    }
}

#[test]
fn wrong_heads_are_refused_in_one_line() {
    let cat = media("cat.jpg");
    let words = ["run", "--backend", "cpu", "--input", &cat];
    for (head, told) in [
        ("similarity", "expected x and y in 0..=1"),
        ("similarity:x=2,y=0", "expected x and y in 0..=1, got 2 and 0"),
        ("similarity:feature=[1,2]", "feature: expected 384 numbers, got 2"),
        ("norm:x=1", "unknown field"),
        ("pca:fit=sometimes", "unknown variant"),
    ] {
        fails(&[&words[..], &["--head", head]].concat(), 2, told);
    }
    fails(&[&words[..], &["--head", "depths"]].concat(), 2, "expected one of");
    fails(&[&words[..], &["--head", "norm", "--head", "norm"]].concat(), 2, "expected each head once");
}
