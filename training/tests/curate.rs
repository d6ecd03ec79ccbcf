//! Whole curations with the bundled model, on mosaics.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use dinov2_cpu::CpuPrecision;
use dinov2_files::chain;
use training::curate::{CurateConfig, CurateError, CurateModel, Reason, Sameness, Summary, curate};
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
    write_shard(&folder.join("pool/shard.tar"), &[mosaic(30, 10), mosaic(31, 10), mosaic(32, 10)]);
}

/// Members are `0.ppm`, `1.ppm`, …
fn write_shard(path: &Path, images: &[Vec<u8>]) {
    let mut shard = tar::Builder::new(fs::File::create(path).unwrap());
    for (number, bytes) in images.iter().enumerate() {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        shard.append_data(&mut header, format!("{number}.ppm"), bytes.as_slice()).unwrap();
    }
    shard.finish().unwrap();
}

fn config(folder: &Path) -> CurateConfig {
    let source = |name: &str| vec![folder.join(name).display().to_string()];
    // Duplicates by hashes, because the model's cosines of mosaics are unknown. Hashes of different mosaics differ in 32 ± 4 bits.
    let same = Sameness { cosine: 0.999, hashed_cosine: 0.5, hash_distance: 10 };
    CurateConfig {
        data: source("pool"),
        reference: Vec::new(),
        evaluation: source("evaluation"),
        seeds: source("robot"),
        out: folder.join("out"),
        model: CurateModel::Bundled,
        precision: CpuPrecision::Int8,
        side_px: 56,
        common_directions: 4,
        threads: NonZeroUsize::new(2).unwrap(),
        neighbours: 8,
        duplicates: same,
        chained_cosine: 0.999,
        leaks: same,
        frames: Vec::new(),
        thin_cosine: 0.999,
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

/// Writes mosaics of these numbers into a folder of the images.
fn write_mosaics(folder: &Path, name: &str, numbers: std::ops::Range<u32>) {
    fs::create_dir_all(folder.join(name)).unwrap();
    numbers.for_each(|at| fs::write(folder.join(format!("{name}/{at:03}.ppm")), mosaic(at, 10)).unwrap());
}

/// A curation of the pool alone.
fn plain(folder: &Path) -> CurateConfig {
    CurateConfig { evaluation: Vec::new(), seeds: Vec::new(), count: None, ..config(folder) }
}

#[test]
fn few_images_are_told_apart_by_what_many_have_in_common() {
    let folder = tempfile::tempdir().unwrap();
    write_mosaics(folder.path(), "many", 100..170);
    write_mosaics(folder.path(), "pool", 0..12);
    let same = Sameness { cosine: 0.7, hashed_cosine: 0.7, hash_distance: 0 };
    let few = CurateConfig { duplicates: same, chained_cosine: 0.7, ..plain(folder.path()) };
    let (alone, _) = run(&few);
    assert!(alone.kept() < 4, "class tokens of the bundled model are alike: {}", alone.kept());
    assert!(alone.advice.is_some_and(|advice| advice.contains("--reference")));

    // At the default size, the bundled model's own common part is used.
    let usual = CurateConfig { side_px: 224, out: folder.path().join("usual"), ..few.clone() };
    let (usual, _) = run(&usual);
    assert!(usual.advice.is_none() && usual.common.contains("vits14-focus-int8.common.json"), "{usual:?}");

    let source = |name: &str| vec![folder.path().join(name).display().to_string()];
    let of_many = CurateConfig { reference: source("many"), out: folder.path().join("with"), ..few.clone() };
    let (told_apart, manifest) = run(&of_many);
    assert_eq!((told_apart.kept(), told_apart.advice), (12, None));
    let kept = CurateConfig { reference: source("with/common.json"), ..few.clone() };
    assert!(run(&kept).1 == manifest);

    let refused = |config: CurateConfig| chain(&curate(&config, &mut |_, _| {}).unwrap_err());
    let other = CurateConfig {
        side_px: 70,
        reference: source("with/common.json"),
        out: source("o")[0].clone().into(),
        ..few.clone()
    };
    assert!(refused(other).contains("at 70 pixels, got model"));
    let more = CurateConfig { common_directions: 5, reference: source("with/common.json"), ..few.clone() };
    assert!(refused(more).contains("expected at least 5 directions, got 4"));
    fs::write(folder.path().join("common.json"), "{}").unwrap();
    assert!(
        refused(CurateConfig { reference: source("common.json"), ..few.clone() }).contains("missing field")
    );
    let too_few = CurateConfig { reference: source("pool"), ..few };
    assert!(refused(too_few).contains("reference: expected at least 64 images"));
}

/// A drive that returns to its start, another one through one of its places, one in a shard; a photograph of another of these
/// places, and a shard of photographs.
fn make_drives(folder: &Path) {
    write_mosaics(folder, "drives/a", 0..4);
    fs::write(folder.join("drives/a/back.ppm"), mosaic(0, 20)).unwrap();
    fs::create_dir_all(folder.join("drives/b")).unwrap();
    fs::write(folder.join("drives/b/other.ppm"), mosaic(1, 30)).unwrap();
    fs::create_dir_all(folder.join("pool")).unwrap();
    fs::write(folder.join("pool/photo.ppm"), mosaic(2, 40)).unwrap();
    write_shard(&folder.join("drives/c.tar"), &[mosaic(5, 10), mosaic(5, 20)]);
    write_shard(&folder.join("pool/photos.tar"), &[mosaic(8, 30), mosaic(9, 30)]);
}

#[test]
fn frames_show_the_same_by_a_threshold_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    make_drives(folder.path());
    let frames = vec![folder.path().join("drives").display().to_string()];
    let plain = CurateConfig { frames, data: Vec::new(), ..plain(folder.path()) };
    let left_out = |config: &CurateConfig| {
        let (summary, _) = run(config);
        let short = |name: &str| name.rsplit('/').next().unwrap().to_string();
        let of = |(name, reason): (&String, &Reason)| match reason {
            Reason::Duplicate { of, .. } => Some(format!("{} like {}", short(name), short(of))),
            Reason::Frame { of, .. } => Some(format!("{} after {}", short(name), short(of))),
            Reason::Leak { of, .. } => Some(format!("{} leaks {}", short(name), short(of))),
            _ => None,
        };
        summary.names.iter().zip(&summary.reasons).filter_map(of).collect::<Vec<_>>()
    };
    // Independently of hashes.
    let all_differ = CurateConfig { thin_cosine: 1.0, ..plain.clone() };
    assert!(left_out(&all_differ).is_empty());
    // Mosaics have cosines up to .991 here, the same at another size from .997 on.
    let same = CurateConfig { thin_cosine: 0.995, ..plain.clone() };
    let by_cosine = ["000.ppm like back.ppm", "001.ppm like other.ppm", "c.tar!1.ppm after c.tar!0.ppm"]
        .map(String::from);
    assert_eq!(left_out(&same), by_cosine);
    // Without a reference, class tokens of the bundled model are similar.
    let alike = CurateConfig { thin_cosine: 0.5, ..plain.clone() };
    let after_first =
        ["001.ppm", "002.ppm", "003.ppm", "back.ppm"].map(|name| format!("{name} after 000.ppm"));
    let got = left_out(&alike);
    assert!(after_first.iter().all(|words| got.contains(words)), "{got:?}");

    // A photograph and a frame are compared like photographs: by their hashes.
    let pool = vec![folder.path().join("pool").display().to_string()];
    let mixed = CurateConfig { data: pool.clone(), out: folder.path().join("mixed"), ..same };
    let mut all = by_cosine.to_vec();
    all.insert(2, "002.ppm like photo.ppm".into());
    assert_eq!(left_out(&mixed), all);
    // Images of an evaluation set are removed, however similar their neighbours are.
    let leaking = CurateConfig { evaluation: pool, ..alike };
    assert!(left_out(&leaking).contains(&"002.ppm leaks photo.ppm".to_string()), "{:?}", left_out(&leaking));
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    make_images(folder.path());
    let config = config(folder.path());
    let refused = |config: CurateConfig| chain(&curate(&config, &mut |_, _| {}).unwrap_err());
    assert_eq!(
        refused(CurateConfig { neighbours: 0, ..config.clone() }),
        "curate: neighbours: expected 1..=256, got 0"
    );
    assert!(refused(CurateConfig { levels: vec![2, 4], ..config.clone() }).contains("levels"));
    assert!(
        refused(CurateConfig { side_px: 57, ..config.clone() }).contains("multiple of the patch size 14")
    );
    assert!(refused(CurateConfig { thin_cosine: f32::NAN, ..config.clone() }).contains("thinning cosine"));
    assert!(
        refused(CurateConfig { model: CurateModel::File(folder.path().join("none")), ..config })
            .contains("none")
    );
}
