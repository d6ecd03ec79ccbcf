//! Loaders, datasets and sources on small files.

use std::fs;
use std::path::Path;

use super::*;
use crate::data::Image;
use crate::views::Mix;

/// An image of one value, and another size for every value.
fn ppm(value: u8) -> Vec<u8> {
    let (width, height) = (20 + usize::from(value) % 7, 18 + usize::from(value) % 5);
    let mut file = format!("P6 {width} {height} 255\n").into_bytes();
    file.resize(file.len() + width * height * 3, value);
    file
}

/// Images number `0..good`, their value being their sample's number times 3, and broken ones behind them.
fn dataset(folder: &Path, good: usize, broken: usize) -> Arc<Dataset> {
    for sample in 0..good {
        fs::write(folder.join(format!("{sample}.ppm")), ppm(sample as u8 * 3)).unwrap();
    }
    for sample in good..good + broken {
        fs::write(folder.join(format!("{sample}.ppm")), b"P6 20 20 255\nshort").unwrap();
    }
    Arc::new(Dataset::open(&[folder.to_str().unwrap().to_string()]).unwrap())
}

fn views() -> ViewConfig {
    ViewConfig {
        sizes_px: vec![7, 14],
        teacher_sizes_px: Some(vec![14, 21]),
        scale: [0.3, 1.0],
        ratio: [0.75, 1.3],
        flip: 0.5,
        colour: None,
        grey: 0.0,
        mixup: 0.5,
    }
}

const PLAN: LoaderPlan = LoaderPlan { seed: 3, batch: 6, rank: 0, world: 1, workers: 2, ahead: 2 };

fn batches(dataset: &Arc<Dataset>, plan: LoaderPlan, start: u64, count: usize) -> Vec<Batch> {
    let mut loader = Loader::new(Arc::clone(dataset), views(), plan, start).unwrap();
    (0..count).map(|_| loader.next().unwrap()).collect()
}

#[test]
fn batches_do_not_depend_on_threads_or_on_where_a_run_started() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 20, 2);
    let want = batches(&dataset, PLAN, 0, 12);
    assert!(want.iter().enumerate().all(|(step, batch)| batch.step == step as u64));
    for (workers, ahead) in [(1, 1), (1, 5), (5, 1), (7, 9)] {
        assert_eq!(
            batches(&dataset, LoaderPlan { workers, ahead, ..PLAN }, 0, 12),
            want,
            "{workers} {ahead}"
        );
    }
    for start in [1, 5, 11] {
        assert_eq!(batches(&dataset, PLAN, start as u64, 12 - start), want[start..]);
    }
    assert_ne!(batches(&dataset, LoaderPlan { seed: 4, ..PLAN }, 0, 12), want);
}

#[test]
fn an_epoch_shows_every_sample_once_over_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 22, 0);
    let ranks: Vec<Vec<Batch>> = (0..3)
        .map(|rank| batches(&dataset, LoaderPlan { batch: 2, rank, world: 3, ..PLAN }, 0, 11))
        .collect();
    let one = batches(&dataset, LoaderPlan { batch: 6, ..PLAN }, 0, 11);
    let stream: Vec<u32> =
        (0..11).flat_map(|step| ranks.iter().flat_map(move |rank| rank[step].samples.clone())).collect();
    assert_eq!(stream, one.iter().flat_map(|batch| batch.samples.clone()).collect::<Vec<_>>());
    for epoch in stream.chunks(22) {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..22).collect::<Vec<_>>());
    }
    let sides = |batch: &Batch| (batch.student.side_px, batch.teacher.as_ref().map(|view| view.side_px));
    assert!((0..11).all(|step| sides(&ranks[0][step]) == sides(&ranks[2][step])));
}

#[test]
fn sides_are_drawn_per_batch_and_the_teachers_are_not_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 9, 0);
    let mut seen = std::collections::BTreeMap::new();
    for batch in batches(&dataset, PLAN, 0, 60) {
        let student = batch.student.side_px;
        assert_eq!(batch.student.data.len(), 6 * student * student * 3);
        let teacher = batch.teacher.map_or(student, |view| {
            assert_eq!(view.data.len(), 6 * view.side_px * view.side_px * 3);
            assert_ne!(view.side_px, student);
            view.side_px
        });
        *seen.entry((student, teacher)).or_insert(0) += 1;
    }
    // Four pairs, of which chance gives each a fourth.
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [(7, 14), (7, 21), (14, 14), (14, 21)]);
    assert!(seen.values().all(|count| *count >= 5), "{seen:?}");
}

#[test]
fn both_networks_see_the_same_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 20, 0);
    for batch in batches(&dataset, PLAN, 0, 20) {
        let value = |slot: usize| batch.samples[slot] as f32 * 3.0;
        for slot in 0..6 {
            let mix = Mix::draw(&views(), PLAN.seed, batch.step * 6 + slot as u64, slot, 6);
            let want = mix.map_or(value(slot), |mix| {
                mix.own_share * value(slot) + (1.0 - mix.own_share) * value(mix.partner)
            });
            for pixels in [Some(&batch.student), batch.teacher.as_ref()].into_iter().flatten() {
                let bytes = pixels.data.len() / 6;
                let view = &pixels.data[slot * bytes..][..bytes];
                assert!(
                    view.iter().all(|got| (f32::from(*got) - want).abs() <= 0.51),
                    "{want} {:?}",
                    &view[..3]
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_replaced_counted_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 10, 3);
    let mut loader = Loader::new(Arc::clone(&dataset), views(), PLAN, 0).unwrap();
    for _ in 0..5 {
        assert!(loader.next().unwrap().samples.iter().all(|sample| *sample < 10));
    }
    let unreadable = loader.unreadable();
    let names: Vec<_> = unreadable.iter().map(|it| it.name.clone()).collect();
    assert_eq!(names, [10, 11, 12].map(|at| folder.path().join(format!("{at}.ppm")).display().to_string()));
    let reasons = |it: &Unreadable| it.reason.starts_with(&format!("cannot decode {}: ", it.name));
    assert!(unreadable.iter().all(reasons), "{unreadable:?}");
}

#[test]
fn a_dataset_without_one_good_image_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 0, 4);
    let mut loader = Loader::new(dataset, views(), PLAN, 0).unwrap();
    for _ in 0..3 {
        let error = loader.next().unwrap_err();
        assert!(matches!(error, DataError::Unreadable { tried: 1_000, .. }), "{error}");
    }
}

#[test]
fn no_more_batches_are_held_than_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 8, 0);
    let mut loader = Loader::new(dataset, views(), LoaderPlan { ahead: 3, workers: 4, ..PLAN }, 0).unwrap();
    for _ in 0..20 {
        loader.next().unwrap();
        let state = loader.shared.lock();
        assert!(state.batches.len() <= 3 && state.next.0 <= state.wanted + 3);
    }
}

#[test]
fn plans_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = dataset(folder.path(), 1, 0);
    let refused =
        |plan, start| Loader::new(Arc::clone(&dataset), views(), plan, start).err().unwrap().to_string();
    assert_eq!(refused(LoaderPlan { rank: 2, world: 2, ..PLAN }, 0), "loader: rank: expected 0..=1, got 2");
    assert!(refused(LoaderPlan { batch: 0, ..PLAN }, 0).contains("batch"));
    assert!(refused(LoaderPlan { world: 0, ..PLAN }, 0).contains("world"));
    assert!(refused(LoaderPlan { workers: 0, ..PLAN }, 0).contains("workers"));
    assert!(refused(LoaderPlan { ahead: 0, ..PLAN }, 0).contains("ahead"));
    assert!(refused(PLAN, u64::MAX).contains("start step"));
    let views = ViewConfig { flip: 2.0, ..views() };
    assert!(Loader::new(dataset, views, PLAN, 0).is_err());
}

#[test]
fn every_kind_of_source_gives_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("sub/.hidden")).unwrap();
    for name in ["sub/10.ppm", "sub/2.ppm", "sub/.hidden/no.ppm", "sub/.no.ppm", "plain"] {
        fs::write(at(name), ppm(9)).unwrap();
    }
    fs::write(at("sub/readme.txt"), "no image").unwrap();
    for shard in 8..11 {
        let mut builder = tar::Builder::new(fs::File::create(at(&format!("s-{shard:03}.tar"))).unwrap());
        builder.append_path_with_name(at("plain"), "x.ppm").unwrap();
        builder.finish().unwrap();
    }
    let open = |source: &str| Dataset::open(&[at(source).display().to_string()]);
    let names = |dataset: &Dataset| -> Vec<String> {
        let root = format!("{}/", folder.path().display());
        (0..dataset.len()).map(|sample| dataset.name(sample).replace(&root, "")).collect()
    };
    let want = [
        ("sub", vec!["sub/2.ppm", "sub/10.ppm"]),
        ("sub/*", vec!["sub/2.ppm", "sub/10.ppm"]),
        ("plain", vec!["plain"]),
        ("s-{008..010}.tar", vec!["s-008.tar!x.ppm", "s-009.tar!x.ppm", "s-010.tar!x.ppm"]),
        ("", vec!["s-008.tar!x.ppm", "s-009.tar!x.ppm", "s-010.tar!x.ppm", "sub/2.ppm", "sub/10.ppm"]),
    ];
    let image = Image::decode(&ppm(9)).unwrap();
    for (source, want) in want {
        let dataset = open(source).unwrap();
        assert_eq!(names(&dataset), want, "{source}");
        assert!((0..dataset.len()).all(|sample| dataset.decode(sample).unwrap() == image));
    }
    fs::write(
        at("list.jsonl"),
        "{\"name\": \"plain\"}\n\n{\"name\": \"gone.ppm\", \"kept\": false}\n{\"name\": \"in shard\", \"member\": \
         {\"shard\": \"s-009.tar\", \"offset\": 512}, \"bytes\": BYTES, \"cluster\": [3]}\n"
            .replace("BYTES", &ppm(9).len().to_string()),
    )
    .unwrap();
    let listed = open("list.jsonl").unwrap();
    assert_eq!(names(&listed), ["plain", "in shard"]);
    assert!((0..2).all(|sample| listed.decode(sample).unwrap() == image));
    let both = open("sub").unwrap();
    assert_eq!(both.fingerprint(), open("sub/*").unwrap().fingerprint());
    assert_ne!(both.fingerprint(), listed.fingerprint());
    fs::write(at("sub/2.ppm"), ppm(10)).unwrap();
    assert_ne!(both.fingerprint(), open("sub").unwrap().fingerprint());
}

#[test]
fn sources_that_name_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |source: &str| {
        let source = folder.path().join(source).display().to_string();
        Dataset::open(&[source]).unwrap_err().to_string()
    };
    fs::write(folder.path().join("bad.tar"), vec![b'x'; 2_000]).unwrap();
    fs::write(folder.path().join("bad.jsonl"), "{\"name\": 3}\n").unwrap();
    assert!(refused("absent.jpg").starts_with("cannot read "));
    assert!(refused("*.png").starts_with("data: expected images, got none in "));
    assert!(refused("bad.tar").starts_with("tar archive: expected a header with the check sum"));
    assert!(refused("bad.jsonl").starts_with("manifest: expected a JSON object with a name"));
    for braces in ["{1..}.tar", "{3..1}.tar", "{x}.tar", "{0..99999999}.tar", "{0..18446744073709551615}.tar"]
    {
        assert!(refused(braces).contains("braces of two numbers"), "{braces}");
    }
    assert_eq!(Dataset::open(&[]).unwrap_err().to_string(), "data: expected images, got no source");
    #[cfg(not(feature = "object-store"))]
    assert!(Dataset::open(&["s3://bucket/a.tar".into()]).unwrap_err().to_string().contains("object-store"));
}
