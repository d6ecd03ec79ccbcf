//! The steps of a curation in their order; `mod.rs` describes them.

use std::collections::HashMap;
use std::fs;

use rayon::prelude::*;

use super::balance::draw_balanced;
use super::duplicates::join_same;
use super::points::dot;
use super::reference::Reference;
use super::scan::{Scan, Scanner};
use super::thin::thin;
use super::{
    CurateConfig, CurateError, Hierarchy, HierarchyOptions, Points, Reason, Subset, Summary, manifest,
    neighbours_between, neighbours_within, report,
};
use crate::data::Dataset;

/// Neighbours in an evaluation set that are compared: the nearest need not be the one whose hash agrees.
const LEAK_NEIGHBOURS: usize = 8;

/// Chooses images and writes `manifest.jsonl` and `report.md`. `progress(phase, done)` hears of the progress, from 0 to 1.
///
/// # Errors
/// A configuration, a source or a model that cannot be used, files that cannot be written, or no image that can be used.
pub fn curate(
    config: &CurateConfig,
    progress: &mut dyn FnMut(&'static str, f64),
) -> Result<Summary, CurateError> {
    config.check()?;
    let (dataset, first_frame) = open(config)?;
    let mut scanner = Scanner::new(config)?;
    let folder = |name: &str| config.out.join("scan").join(name);
    let mut scan = scanner.scan(&dataset, &folder("data"), &mut |done| progress("reading images", done))?;
    let reference = Reference::find(config, &mut scanner, &scan, progress)?;
    reference.write(&config.out)?;
    scan.embeddings = reference.remove(scan.embeddings);
    let mut other = |sources: &[String], name: &str, phase: &'static str| {
        let dataset = if sources.is_empty() { None } else { Some(Dataset::open(sources)?) };
        let scanned = dataset.map(|dataset| -> Result<_, CurateError> {
            let mut scan = scanner.scan(&dataset, &folder(name), &mut |done| progress(phase, done))?;
            scan.embeddings = reference.remove(scan.embeddings);
            Ok(ScannedSet::new(dataset, scan))
        });
        scanned.transpose()
    };
    let evaluation = other(&config.evaluation, "evaluation", "reading evaluation images")?;
    let seeds = other(&config.seeds, "seeds", "reading the robot's frames")?;

    let mut selection =
        Selection { config, dataset: &dataset, first_frame, scan: &scan, reasons: vec![None; dataset.len()] };
    selection.drop_unusable();
    let leaks = evaluation.map_or_else(HashMap::new, |evaluation| selection.leaks(&evaluation));
    selection.thin_videos(&leaks);
    selection.drop_same(&leaks, &mut |done| progress("comparing images", done));
    let live = selection.live();
    if live.is_empty() {
        return Err(CurateError::Nothing(dataset.len()));
    }
    let points = Subset { points: &scan.embeddings, members: &live };
    let options = HierarchyOptions {
        levels: config.levels_for(live.len()),
        iterations: config.iterations,
        resampling: config.resampling,
        seed: config.seed,
    };
    let hierarchy = Hierarchy::build(&points, &options, &mut |done| progress("clustering", done));
    selection.choose(&live, &points, &hierarchy, seeds.as_ref());
    let mut clusters = vec![Vec::new(); dataset.len()];
    live.iter().enumerate().for_each(|(point, &sample)| clusters[sample as usize] = hierarchy.path(point));
    let summary = Summary {
        names: (0..dataset.len()).map(|sample| dataset.name(sample).to_string()).collect(),
        reasons: selection.reasons.into_iter().map(|reason| reason.unwrap_or(Reason::NotDrawn)).collect(),
        clusters,
        levels: hierarchy.clusters,
        common: reference.words,
        advice: reference.advice,
    };
    fs::create_dir_all(&config.out).map_err(CurateError::file(&config.out))?;
    let path = config.out.join("manifest.jsonl");
    manifest::write(&path, &dataset, &scan.facts, &summary.clusters, &summary.reasons)?;
    report::write(&config.out.join("report.md"), config, &summary)?;
    Ok(summary)
}

/// Images of an evaluation set or of the robot, scanned but not selected from.
struct ScannedSet {
    dataset: Dataset,
    scan: Scan,
    /// Those that can be read.
    usable: Vec<u32>,
}

impl ScannedSet {
    fn new(dataset: Dataset, scan: Scan) -> Self {
        let usable = scan.usable();
        Self { dataset, scan, usable }
    }
}

/// An image of an evaluation set, and the cosine to it.
type Leak = (String, f32);

/// Decisions so far.
struct Selection<'a> {
    config: &'a CurateConfig,
    dataset: &'a Dataset,
    /// Samples from this one on are frames of videos.
    first_frame: usize,
    scan: &'a Scan,
    /// `None` while an image is undecided.
    reasons: Vec<Option<Reason>>,
}

impl Selection<'_> {
    fn live(&self) -> Vec<u32> {
        (0..self.reasons.len() as u32).filter(|&sample| self.reasons[sample as usize].is_none()).collect()
    }

    fn name(&self, sample: u32) -> String {
        self.dataset.name(sample as usize).to_string()
    }

    /// Leaves out unreadable images, and all but the first of files with the same bytes.
    fn drop_unusable(&mut self) {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (sample, fact) in self.scan.facts.iter().enumerate() {
            self.reasons[sample] = match &fact.error {
                Some(error) => Some(Reason::Unreadable { error: error.clone() }),
                None => match *first.entry(&fact.sha256).or_insert(sample) {
                    own if own == sample => None,
                    other => Some(Reason::Copy { of: self.name(other as u32) }),
                },
            };
        }
    }

    /// Of frames that hardly differ from one before in their video, leaves out all but that one. Those that leak do not stand for others.
    fn thin_videos(&mut self, leaks: &HashMap<u32, Leak>) {
        let mut frames = self.live();
        frames.retain(|sample| *sample as usize >= self.first_frame && !leaks.contains_key(sample));
        let mut known = HashMap::new();
        let mut number_of = |video| {
            let next = known.len() as u32;
            *known.entry(video).or_insert(next)
        };
        let videos: Vec<_> =
            frames.iter().map(|&sample| number_of(video_of(self.dataset.name(sample as usize)))).collect();
        let points = Subset { points: &self.scan.embeddings, members: &frames };
        for (point, thinned) in thin(&points, &videos, self.config.thin_cosine).into_iter().enumerate() {
            if let Some((of, cosine)) = thinned {
                let of = self.name(frames[of as usize]);
                self.reasons[frames[point] as usize] = Some(Reason::Frame { of, cosine });
            }
        }
    }

    /// Whether two samples show the same: two frames by how much a video is to change, others by what is known of photographs.
    /// `chained`: whether they are joined already by way of others.
    fn same(&self, pair: [u32; 2], cosine: f32, chained: bool) -> bool {
        if pair.iter().all(|&sample| sample as usize >= self.first_frame) {
            cosine >= self.config.thin_cosine
        } else {
            self.same_photograph(pair, cosine, chained)
        }
    }

    fn same_photograph(&self, pair: [u32; 2], cosine: f32, chained: bool) -> bool {
        let hashes = pair.map(|sample| self.scan.facts[sample as usize].hash);
        (chained && cosine >= self.config.chained_cosine) || self.config.duplicates.holds(cosine, hashes)
    }

    /// Joins images that show the same and goes through what is joined: where one shows an image of an evaluation set, it goes with
    /// all that show the same as it; of what remains, the largest stays.
    fn drop_same(&mut self, leaks: &HashMap<u32, Leak>, step: &mut dyn FnMut(f64)) {
        let live = self.live();
        let points = Subset { points: &self.scan.embeddings, members: &live };
        let neighbours = neighbours_within(&points, self.config.neighbours, step);
        let mut components = join_same(&neighbours, live.len(), |pair, cosine| {
            self.same(pair.map(|point| live[point as usize]), cosine, false)
        });
        let mut members: HashMap<u32, Vec<u32>> = HashMap::new();
        for point in 0..live.len() as u32 {
            members.entry(components.root(point)).or_default().push(point);
        }
        let leak = |point: u32| leaks.get(&live[point as usize]);
        let mut reasons = Vec::new();
        for mut rest in members.into_values() {
            // Images that decide about others come first: leaks, then the largest, then the first.
            let pixels = |point: u32| {
                let fact = &self.scan.facts[live[point as usize] as usize];
                fact.width_px * fact.height_px
            };
            rest.sort_by_key(|&point| (leak(point).is_none(), std::cmp::Reverse(pixels(point)), point));
            while let Some(&first) = rest.first() {
                if let Some((of, cosine)) = leak(first) {
                    reasons.push((first, Reason::Leak { of: of.clone(), cosine: *cosine }));
                }
                rest.remove(0);
                let mut cosines = cosines(&points, first, &rest).into_iter();
                rest.retain(|&point| {
                    let cosine = cosines.next().expect("one for each");
                    let pair = [point, first].map(|point| live[point as usize]);
                    let reason = match leak(first) {
                        _ if leak(point).is_some() => return true,
                        Some((of, cosine_to_it)) if self.same_photograph(pair, cosine, true) => {
                            Reason::Leak { of: of.clone(), cosine: *cosine_to_it }
                        }
                        None if self.same(pair, cosine, true) => {
                            Reason::Duplicate { of: self.name(live[first as usize]), cosine }
                        }
                        _ => return true,
                    };
                    reasons.push((point, reason));
                    false
                });
            }
        }
        for (point, reason) in reasons {
            self.reasons[live[point as usize] as usize] = Some(reason);
        }
    }

    /// Samples that show an image of an evaluation set.
    fn leaks(&self, evaluation: &ScannedSet) -> HashMap<u32, Leak> {
        let live = self.live();
        let points = Subset { points: &self.scan.embeddings, members: &live };
        let others = Subset { points: &evaluation.scan.embeddings, members: &evaluation.usable };
        let neighbours = neighbours_between(&points, &others, LEAK_NEIGHBOURS);
        let mut leaks = HashMap::new();
        for (point, &sample) in live.iter().enumerate() {
            let hash = self.scan.facts[sample as usize].hash;
            let same = neighbours.of(point).iter().find(|neighbour| {
                let other = evaluation.usable[neighbour.row as usize];
                let other = evaluation.scan.facts[other as usize].hash;
                self.config.leaks.holds(neighbour.cosine, [hash, other])
            });
            if let Some(neighbour) = same {
                let other = evaluation.usable[neighbour.row as usize] as usize;
                leaks.insert(sample, (evaluation.dataset.name(other).to_string(), neighbour.cosine));
            }
        }
        leaks
    }

    /// Takes what is nearest to the robot's frames, and draws the rest.
    fn choose(
        &mut self,
        live: &[u32],
        points: &impl Points,
        hierarchy: &Hierarchy,
        seeds: Option<&ScannedSet>,
    ) {
        let mut usable = vec![true; live.len()];
        let mut taken = 0;
        if let Some(seeds) = seeds {
            let frames = Subset { points: &seeds.scan.embeddings, members: &seeds.usable };
            let neighbours = neighbours_between(&frames, points, self.config.per_seed);
            // All frames' first neighbours come before any second one, in case that not all are wanted.
            for rank in 0..self.config.per_seed {
                for (frame, &seed) in seeds.usable.iter().enumerate() {
                    let Some(neighbour) = neighbours.of(frame).get(rank) else { continue };
                    let point = neighbour.row as usize;
                    if usable[point] && self.config.count.is_none_or(|count| taken < count) {
                        let by = seeds.dataset.name(seed as usize).to_string();
                        let reason = Reason::Retrieved { by, cosine: neighbour.cosine };
                        self.reasons[live[point] as usize] = Some(reason);
                        usable[point] = false;
                        taken += 1;
                    }
                }
            }
        }
        let wanted = self.config.count.unwrap_or(live.len()) - taken;
        for point in draw_balanced(hierarchy, &usable, wanted, self.config.seed) {
            self.reasons[live[point as usize] as usize] = Some(Reason::Drawn);
        }
    }
}

/// All images to choose from, and the first of them that is a video's frame.
fn open(config: &CurateConfig) -> Result<(Dataset, usize), CurateError> {
    if config.frames.is_empty() {
        let images = Dataset::open(&config.data)?;
        let count = images.len();
        return Ok((images, count));
    }
    let frames = Dataset::open(&config.frames)?;
    if config.data.is_empty() {
        return Ok((frames, 0));
    }
    let images = Dataset::open(&config.data)?;
    let count = images.len();
    Ok((images.followed_by(frames), count))
}

/// The video of a frame with this name: what is in one folder or shard.
fn video_of(name: &str) -> &str {
    name.rsplit_once(['/', '!']).map_or("", |(folder, _)| folder)
}

/// Cosines of `one` to each of the `others`: `[others]`. Many, where chains of what shows the same are long.
fn cosines(points: &impl Points, one: u32, others: &[u32]) -> Vec<f32> {
    let vector = |point: u32| {
        let mut vector = vec![0.0; points.dim()];
        points.write(point as usize, &mut vector);
        vector
    };
    let one = vector(one);
    others.par_iter().with_min_len(64).map(|&other| dot(&one, &vector(other))).collect()
}
