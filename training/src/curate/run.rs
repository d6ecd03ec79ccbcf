use std::collections::HashMap;
use std::fs;

use super::balance::draw_balanced;
use super::centre::Common;
use super::duplicates::join_same;
use super::points::dot;
use super::scan::{Scan, Scanner};
use super::thin::thin;
use super::{
    CurateConfig, CurateError, Hierarchy, HierarchyOptions, Points, Reason, Subset, manifest,
    neighbours_between, neighbours_within, report,
};
use crate::data::Dataset;

/// Neighbours of an image in an evaluation set that are looked at: the nearest need not be the one whose hash agrees.
const LEAK_NEIGHBOURS: usize = 8;

/// What was chosen.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Names of the images: `[images]`.
    pub names: Vec<String>,
    /// What became of each: `[images]`.
    pub reasons: Vec<Reason>,
    /// Clusters of each, the coarsest first; empty where it was left out before: `[images]`.
    pub clusters: Vec<Vec<u32>>,
    /// Clusters per level, the finest first.
    pub levels: Vec<usize>,
}

impl Summary {
    /// Images that are to be trained on.
    pub fn kept(&self) -> usize {
        self.reasons.iter().filter(|reason| reason.is_kept()).count()
    }
}

/// Chooses images and writes `manifest.jsonl` and `report.md`. `told(stage, done)` hears of the progress, from 0 to 1.
///
/// # Errors
/// A configuration, a source or a model that cannot be used, files that cannot be written, or no image that can be used.
pub fn curate(
    config: &CurateConfig,
    told: &mut dyn FnMut(&'static str, f64),
) -> Result<Summary, CurateError> {
    config.check()?;
    let dataset = Dataset::open(&config.data)?;
    let mut scanner = Scanner::new(config)?;
    let folder = |name: &str| config.out.join("scan").join(name);
    let mut scan = scanner.scan(&dataset, &folder("data"), &mut |done| told("reading images", done))?;
    let common = if config.reference.is_empty() {
        Common::measure(&scan.embeddings, &scan.usable(), config.common_directions)?
    } else {
        let reference = Dataset::open(&config.reference)?;
        let scan = scanner
            .scan(&reference, &folder("reference"), &mut |done| told("reading reference images", done))?;
        Common::measure(&scan.embeddings, &scan.usable(), config.common_directions)?
    };
    scan.embeddings = common.remove(&scan.embeddings, config.common_directions);
    let mut other = |sources: &[String], name: &str, stage: &'static str| {
        let dataset = if sources.is_empty() { None } else { Some(Dataset::open(sources)?) };
        let scanned = dataset.map(|dataset| -> Result<_, CurateError> {
            let mut scan = scanner.scan(&dataset, &folder(name), &mut |done| told(stage, done))?;
            scan.embeddings = common.remove(&scan.embeddings, config.common_directions);
            Ok(Others::new(dataset, scan))
        });
        scanned.transpose()
    };
    let evaluation = other(&config.evaluation, "evaluation", "reading evaluation images")?;
    let seeds = other(&config.seeds, "seeds", "reading the robot's frames")?;

    let mut choice = Choice { config, dataset: &dataset, scan: &scan, reasons: vec![None; dataset.len()] };
    choice.drop_unusable();
    choice.thin_video();
    choice.drop_same(evaluation.as_ref(), &mut |done| told("comparing images", done));
    let live = choice.live();
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
    let hierarchy = Hierarchy::build(&points, &options, &mut |done| told("clustering", done));
    choice.choose(&live, &points, &hierarchy, seeds.as_ref());
    let mut clusters = vec![Vec::new(); dataset.len()];
    live.iter().enumerate().for_each(|(point, &sample)| clusters[sample as usize] = hierarchy.path(point));
    let summary = Summary {
        names: (0..dataset.len()).map(|sample| dataset.name(sample).to_string()).collect(),
        reasons: choice.reasons.into_iter().map(|reason| reason.unwrap_or(Reason::NotDrawn)).collect(),
        clusters,
        levels: hierarchy.clusters,
    };
    fs::create_dir_all(&config.out).map_err(CurateError::file(&config.out))?;
    let path = config.out.join("manifest.jsonl");
    manifest::write(&path, &dataset, &scan.facts, &summary.clusters, &summary.reasons)?;
    report::write(&config.out.join("report.md"), config, &summary)?;
    Ok(summary)
}

/// Images that are not chosen from.
struct Others {
    dataset: Dataset,
    scan: Scan,
    /// Those that can be read.
    usable: Vec<u32>,
}

impl Others {
    fn new(dataset: Dataset, scan: Scan) -> Self {
        let usable = scan.usable();
        Self { dataset, scan, usable }
    }
}

/// What is decided so far.
struct Choice<'a> {
    config: &'a CurateConfig,
    dataset: &'a Dataset,
    scan: &'a Scan,
    /// None of an image about which nothing is decided.
    reasons: Vec<Option<Reason>>,
}

impl Choice<'_> {
    fn live(&self) -> Vec<u32> {
        (0..self.reasons.len() as u32).filter(|&sample| self.reasons[sample as usize].is_none()).collect()
    }

    fn name(&self, sample: u32) -> String {
        self.dataset.name(sample as usize).to_string()
    }

    /// Leaves out what cannot be read, and all but the first of files with the same bytes.
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

    fn thin_video(&mut self) {
        let Some(threshold) = self.config.thin else { return };
        let live = self.live();
        let mut videos = HashMap::new();
        let groups: Vec<_> = live
            .iter()
            .map(|&sample| {
                let next = videos.len();
                let name = self.dataset.name(sample as usize);
                let folder = name.rsplit_once(['/', '!']).map_or("", |(folder, _)| folder).to_string();
                Some(*videos.entry(folder).or_insert(next))
            })
            .collect();
        let points = Subset { points: &self.scan.embeddings, members: &live };
        for (point, thinned) in thin(&points, &groups, threshold).into_iter().enumerate() {
            if let Some((of, cosine)) = thinned {
                let of = self.name(live[of as usize]);
                self.reasons[live[point] as usize] = Some(Reason::Frame { of, cosine });
            }
        }
    }

    /// Joins images that show the same and goes through what is joined: where one shows an image of an evaluation set, it goes with
    /// all that show the same as it; of what remains, the largest stays.
    fn drop_same(&mut self, evaluation: Option<&Others>, step: &mut dyn FnMut(f64)) {
        let live = self.live();
        let points = Subset { points: &self.scan.embeddings, members: &live };
        let fact = |point: u32| &self.scan.facts[live[point as usize] as usize];
        let hashes: Vec<u64> = (0..live.len() as u32).map(|point| fact(point).hash).collect();
        let neighbours = neighbours_within(&points, self.config.neighbours, step);
        let mut components = join_same(&neighbours, &hashes, &self.config.duplicates);
        let leaks =
            evaluation.map_or_else(HashMap::new, |evaluation| self.leaks(&points, &hashes, evaluation));
        let mut members: HashMap<u32, Vec<u32>> = HashMap::new();
        for point in 0..live.len() as u32 {
            members.entry(components.root(point)).or_default().push(point);
        }
        let mut reasons = Vec::new();
        for mut rest in members.into_values() {
            // Whoever decides about others comes first: those that leak, then the largest, then the first.
            let pixels = |point: u32| fact(point).width_px * fact(point).height_px;
            rest.sort_by_key(|&point| (!leaks.contains_key(&point), std::cmp::Reverse(pixels(point)), point));
            while let Some(&first) = rest.first() {
                let leak = leaks.get(&first);
                if let Some((of, cosine)) = leak {
                    reasons.push((first, Reason::Leak { of: of.clone(), cosine: *cosine }));
                }
                rest.remove(0);
                rest.retain(|&point| {
                    let cosine = cosine(&points, point, first);
                    let pair = [hashes[point as usize], hashes[first as usize]];
                    let same =
                        cosine >= self.config.chained_cosine || self.config.duplicates.holds(cosine, pair);
                    if same && !leaks.contains_key(&point) {
                        let duplicate = || Reason::Duplicate { of: self.name(live[first as usize]), cosine };
                        let leaked =
                            |(of, cosine): &(String, f32)| Reason::Leak { of: of.clone(), cosine: *cosine };
                        reasons.push((point, leak.map_or_else(duplicate, leaked)));
                    }
                    !same || leaks.contains_key(&point)
                });
            }
        }
        for (point, reason) in reasons {
            self.reasons[live[point as usize] as usize] = Some(reason);
        }
    }

    /// Points that show an image of an evaluation set: which, and the cosine.
    fn leaks(
        &self,
        points: &impl Points,
        hashes: &[u64],
        evaluation: &Others,
    ) -> HashMap<u32, (String, f32)> {
        let others = Subset { points: &evaluation.scan.embeddings, members: &evaluation.usable };
        let neighbours = neighbours_between(points, &others, LEAK_NEIGHBOURS);
        let mut leaks = HashMap::new();
        for (point, &hash) in hashes.iter().enumerate() {
            let same = neighbours.of(point).iter().find(|neighbour| {
                let other = evaluation.usable[neighbour.row as usize];
                let other = evaluation.scan.facts[other as usize].hash;
                self.config.leaks.holds(neighbour.cosine, [hash, other])
            });
            if let Some(neighbour) = same {
                let other = evaluation.usable[neighbour.row as usize] as usize;
                leaks.insert(point as u32, (evaluation.dataset.name(other).to_string(), neighbour.cosine));
            }
        }
        leaks
    }

    /// Takes what is nearest to the robot's frames, and draws the rest.
    fn choose(&mut self, live: &[u32], points: &impl Points, hierarchy: &Hierarchy, seeds: Option<&Others>) {
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

fn cosine(points: &impl Points, left: u32, right: u32) -> f32 {
    let mut vectors = [vec![0.0; points.dim()], vec![0.0; points.dim()]];
    points.write(left as usize, &mut vectors[0]);
    points.write(right as usize, &mut vectors[1]);
    dot(&vectors[0], &vectors[1])
}
