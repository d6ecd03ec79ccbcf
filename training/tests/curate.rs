//! A whole curation with the bundled model.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use dinov2_cpu::CpuPrecision;
use training::curate::{CurateConfig, CurateError, Reason, Sameness, Summary, curate};
use training::data::Dataset;

/// A mosaic of 6x4 random colours with squares of this side: another one for every number, the same picture at every side.
fn mosaic(number: u32, side_px: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(747_796_405).wrapping_add(1);
    let mut colour = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let colours: Vec<[u8; 3]> = (0..24).map(|_| [colour(), colour(), colour()]).collect();
    let mut file = format!("P6 {} {} 255\n", 6 * side_px, 4 * side_px).into_bytes();
    for y in 0..4 * side_px {
        (0..6 * side_px).for_each(|x| file.extend(colours[y / side_px * 6 + x / side_px]));
    }
    file
}

/// Twelve pictures, a copy and a larger version among them, a broken file, and a shard of three more.
fn make_images(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    (0..12).for_each(|number| write(&format!("pool/{number}.ppm"), &mosaic(number, 10)));
    write("pool/copy.ppm", &mosaic(3, 10));
    write("pool/large.ppm", &mosaic(5, 20));
    write("pool/broken.ppm", &mosaic(20, 10)[..500]);
    write("evaluation/seven.ppm", &mosaic(7, 16));
    write("robot/frame.ppm", &mosaic(2, 12));
    let mut shard = tar::Builder::new(fs::File::create(folder.join("pool/shard.tar")).unwrap());
    for number in 30..33 {
        let (bytes, mut header) = (mosaic(number, 10), tar::Header::new_gnu());
        header.set_size(bytes.len() as u64);
        shard.append_data(&mut header, format!("{number}.ppm"), bytes.as_slice()).unwrap();
    }
    shard.finish().unwrap();
}

fn config(folder: &Path) -> CurateConfig {
    let source = |name: &str| vec![folder.join(name).display().to_string()];
    // By hashes: how near mosaics are to each other is the model's secret. Hashes of unlike ones differ in 32 bits, give or take 4.
    let same = Sameness { cosine: 0.999, hashed_cosine: 0.5, hash_distance: 10 };
    CurateConfig {
        data: source("pool"),
        reference: Vec::new(),
        evaluation: source("evaluation"),
        seeds: source("robot"),
        out: folder.join("out"),
        model: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/vits14-focus-int8.safetensors")),
        precision: CpuPrecision::Int8,
        side_px: 56,
        common_directions: 4,
        threads: NonZeroUsize::new(2).unwrap(),
        neighbours: 8,
        duplicates: same,
        chained_cosine: 0.999,
        leaks: same,
        thin: None,
        levels: vec![4, 2],
        resampling: 1,
        iterations: 10,
        count: Some(8),
        per_seed: 1,
        seed: 1,
    }
}

fn reason<'a>(summary: &'a Summary, name: &str) -> &'a Reason {
    let at = summary.names.iter().position(|it| it.ends_with(name)).unwrap();
    &summary.reasons[at]
}

fn run(config: &CurateConfig) -> (Summary, Vec<u8>) {
    let summary = curate(config, &mut |_, _| {}).unwrap();
    (summary, fs::read(config.out.join("manifest.jsonl")).unwrap())
}

#[test]
fn every_image_has_its_reason_and_the_manifest_opens() {
    let folder = tempfile::tempdir().unwrap();
    make_images(folder.path());
    let config = config(folder.path());
    let (summary, _) = run(&config);
    assert_eq!((summary.reasons.len(), summary.kept()), (18, 8));
    assert!(matches!(reason(&summary, "/broken.ppm"), Reason::Unreadable { .. }));
    assert!(matches!(reason(&summary, "/copy.ppm"), Reason::Copy { of } if of.ends_with("/3.ppm")));
    assert!(matches!(reason(&summary, "/5.ppm"), Reason::Duplicate { of, .. } if of.ends_with("/large.ppm")));
    assert!(matches!(reason(&summary, "/7.ppm"), Reason::Leak { of, .. } if of.ends_with("/seven.ppm")));
    assert!(matches!(reason(&summary, "/2.ppm"), Reason::Retrieved { by, .. } if by.ends_with("/frame.ppm")));
    let kinds = |wanted: fn(&Reason) -> bool| summary.reasons.iter().filter(|reason| wanted(reason)).count();
    assert_eq!(kinds(|reason| matches!(reason, Reason::Drawn)), 7);
    assert_eq!(kinds(|reason| matches!(reason, Reason::NotDrawn)), 6);

    let chosen = Dataset::open(&[config.out.join("manifest.jsonl").display().to_string()]).unwrap();
    assert_eq!(chosen.len(), 8);
    (0..8).for_each(|sample| assert_eq!(chosen.decode(sample).unwrap().height_px % 40, 0));
    let report = fs::read_to_string(config.out.join("report.md")).unwrap();
    assert!(report.contains("8 of 18 images are kept."), "{report}");
    assert!(report.contains("| left out: cannot be read | 1 | 5.6 % |"), "{report}");
}

#[test]
fn a_curation_that_was_stopped_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    make_images(folder.path());
    let config = config(folder.path());
    let (_, whole) = run(&config);
    let facts = config.out.join("scan/data/facts.jsonl");
    let text = fs::read_to_string(&facts).unwrap();
    let (_, again) = run(&config);
    assert!(again == whole);
    // Killed in the middle of a line, with embeddings ahead of it.
    fs::write(&facts, &text[..text.len() / 2]).unwrap();
    let (_, resumed) = run(&config);
    assert!(resumed == whole);
    assert_eq!(fs::read_to_string(&facts).unwrap(), text);

    let other = CurateConfig { side_px: 70, ..config };
    let refused = curate(&other, &mut |_, _| {}).unwrap_err();
    assert!(matches!(refused, CurateError::OtherScan { .. }), "{refused}");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    make_images(folder.path());
    let config = config(folder.path());
    let refused = |config: CurateConfig| curate(&config, &mut |_, _| {}).unwrap_err().to_string();
    assert_eq!(
        refused(CurateConfig { neighbours: 0, ..config.clone() }),
        "curate: neighbours: expected 1..=256, got 0"
    );
    assert!(refused(CurateConfig { levels: vec![2, 4], ..config.clone() }).contains("levels"));
    assert!(
        refused(CurateConfig { side_px: 57, ..config.clone() }).contains("multiple of the patch size 14")
    );
    assert!(refused(CurateConfig { thin: Some(f32::NAN), ..config.clone() }).contains("thinning cosine"));
    assert!(refused(CurateConfig { model: folder.path().join("none"), ..config }).contains("none"));
}
