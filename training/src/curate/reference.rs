//! Which images the common part of embeddings is measured on: those that the user names, those of the model's own file, or the images to
//! choose from. Also the advice where that choice is a poor one.

use std::path::Path;

use dinov2_files::chain;

use super::common::{self, Common};
use super::scan::{Scan, Scanner};
use super::{CurateConfig, CurateError, Embeddings};
use crate::data::Dataset;

/// Mean cosine above which images are too similar to measure a common part on: single videos have .83 to .98 with the
/// bundled model, twelve together .74, unlike photographs .69.
const ALIKE: f32 = 0.8;
const TAKE_OTHERS: &str = "--reference takes other images, many and unlike";

/// What all embeddings have in common, and on what that was measured.
pub(super) struct Reference {
    /// None of a few images with a model of which nothing is known.
    common: Option<Common>,
    /// Description of the images, for the report.
    pub(super) words: String,
    /// Advice for better results.
    pub(super) advice: Option<String>,
}

impl Reference {
    /// Measures or reads it: as asked for; else, where images to choose from cannot tell, what is known of the model; else of those
    /// images.
    pub(super) fn find(
        config: &CurateConfig,
        scanner: &mut Scanner,
        scan: &Scan,
        progress: &mut dyn FnMut(&'static str, f64),
    ) -> Result<Self, CurateError> {
        let directions = config.common_directions;
        let read = |common: Common, path: &str| {
            let of = format!("{} images: {path}", common.images());
            Self::new(common, config, &of, Vec::new())
        };
        if config.reference.iter().any(|source| source.ends_with(".json")) {
            let [file] = &config.reference[..] else {
                let expected = format!("one {}, or images", common::FILE);
                return Err(CurateError::Config {
                    what: "reference",
                    expected,
                    got: config.reference.join(", "),
                });
            };
            let path = Path::new(file);
            return Ok(read(Common::read(path)?.fitting(directions, scanner.setup(), path)?, file));
        }
        if !config.reference.is_empty() {
            return Self::of_others(config, scanner, progress);
        }
        let usable = scan.usable();
        let mut advice = Vec::new();
        let is_alike = usable.len() < common::LEAST || !config.frames.is_empty();
        let known = if is_alike { config.model.common()? } else { None };
        if let Some((common, place)) = known {
            match common.fitting(directions, scanner.setup(), Path::new(&place)) {
                Ok(common) => return Ok(read(common, &place)),
                Err(error) => advice.push(format!("{}: it is not used", chain(&error))),
            }
        }
        Self::of_own(config, scanner, scan, &usable, advice)
    }

    fn new(common: Common, config: &CurateConfig, of: &str, advice: Vec<String>) -> Self {
        let words = format!("mean and {} directions of {of}", config.common_directions);
        Self { common: Some(common), words, advice: joined(&advice) }
    }

    /// Measured on images that were named for it.
    fn of_others(
        config: &CurateConfig,
        scanner: &mut Scanner,
        progress: &mut dyn FnMut(&'static str, f64),
    ) -> Result<Self, CurateError> {
        let dataset = Dataset::open(&config.reference)?;
        let folder = config.out.join("scan/reference");
        let scan = scanner.scan(&dataset, &folder, &mut |done| progress("reading reference images", done))?;
        let usable = scan.usable();
        match Common::measure(&scan.embeddings, &usable, config.common_directions, scanner.setup())? {
            Some(common) => Ok(Self::new(common, config, &config.reference.join(", "), Vec::new())),
            None => Err(CurateError::Config {
                what: "reference",
                expected: format!("at least {} images that can be read", common::LEAST),
                got: usable.len().to_string(),
            }),
        }
    }

    /// Measured on the images to choose from.
    fn of_own(
        config: &CurateConfig,
        scanner: &Scanner,
        scan: &Scan,
        usable: &[u32],
        mut advice: Vec<String>,
    ) -> Result<Self, CurateError> {
        let directions = config.common_directions;
        let Some(common) = Common::measure(&scan.embeddings, usable, directions, scanner.setup())? else {
            advice.push(format!(
                "fewer than {} images cannot tell what all have in common, and unlike ones may seem the same: {TAKE_OTHERS}",
                common::LEAST
            ));
            return Ok(Self {
                common: None,
                words: "nothing: too few images".into(),
                advice: joined(&advice),
            });
        };
        let alike = common.mean_cosine();
        if !config.frames.is_empty() {
            advice.push(format!(
                "what frames have in common was measured on themselves (mean cosine {alike:.2}), so trifles may tell them apart: \
                 {TAKE_OTHERS}"
            ));
        } else if alike > ALIKE {
            advice.push(format!(
                "these images are alike (mean cosine {alike:.2}), so trifles tell them apart: if they are frames of videos, name them \
                 after --video; else {TAKE_OTHERS}"
            ));
        }
        Ok(Self::new(common, config, "all images", advice))
    }

    /// Takes it away from embeddings.
    pub(super) fn remove(&self, embeddings: Embeddings) -> Embeddings {
        match &self.common {
            Some(common) => common.remove(&embeddings),
            None => embeddings,
        }
    }

    /// Writes `common.json`, for other runs.
    pub(super) fn write(&self, folder: &Path) -> Result<(), CurateError> {
        match &self.common {
            Some(common) => common.write(&folder.join(common::FILE)),
            None => Ok(()),
        }
    }
}

fn joined(advice: &[String]) -> Option<String> {
    (!advice.is_empty()).then(|| advice.join("; "))
}
