//! Size, hashes and embedding of every image. Written chunk by chunk, so that an interrupted scan can continue.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use dinov2_core::{Extractor, Features, ImageView, Taps};
use dinov2_cpu::{CpuConfig, CpuEngine};
use dinov2_files::chain;
use dinov2_io::Resampler;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CurateConfig, CurateError, Embeddings, perceptual_hash};
use crate::data::{DataError, Dataset, Image};
use crate::files::write_bytes;

/// Images between two writings.
const CHUNK: usize = 64;
/// Images that the engine takes at a time.
const BATCH: usize = 16;

/// Size, hashes and error of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ImageFacts {
    /// Of the encoded image, in hexadecimal digits.
    pub(super) sha256: String,
    /// Of the encoded image.
    pub(super) bytes: u64,
    pub(super) width_px: usize,
    pub(super) height_px: usize,
    /// [`perceptual_hash`].
    pub(super) hash: u64,
    /// Why it cannot be used; its embedding is zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Facts and embeddings of a dataset, both `[samples]`.
pub(super) struct Scan {
    pub(super) facts: Vec<ImageFacts>,
    pub(super) embeddings: Embeddings,
}

impl Scan {
    /// Images that can be read.
    pub(super) fn usable(&self) -> Vec<u32> {
        (0..self.facts.len() as u32).filter(|&sample| self.facts[sample as usize].error.is_none()).collect()
    }
}

/// The model, precision and size that embeddings depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EmbeddingSetup {
    /// SHA-256 of the model file.
    pub(super) model: String,
    pub(super) precision: String,
    pub(super) side_px: usize,
    pub(super) dim: usize,
}

/// The dataset and setup of a scan: it continues only with the same.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Origin {
    samples: usize,
    dataset: String,
    #[serde(flatten)]
    setup: EmbeddingSetup,
}

/// Scans datasets with one model.
pub(super) struct Scanner {
    engine: CpuEngine,
    setup: EmbeddingSetup,
    features: Vec<Features>,
}

struct ScannedImage {
    fact: ImageFacts,
    /// `[side, side, 3]`, empty of an image that cannot be used.
    pixels: Vec<u8>,
}

impl Scanner {
    pub(super) fn new(config: &CurateConfig) -> Result<Self, CurateError> {
        let (model, sha256) = config.model.open()?;
        let patch_size = model.spec().patch_size;
        if config.side_px == 0 || !config.side_px.is_multiple_of(patch_size) || config.side_px > 1_022 {
            let expected = format!("a multiple of the patch size {patch_size}, at most 1022");
            return Err(CurateError::Config { what: "side", expected, got: config.side_px.to_string() });
        }
        let mut settings = CpuConfig::with_threads(config.threads);
        settings.precision = config.precision;
        let engine = CpuEngine::new(&model, settings)?;
        let features = std::iter::repeat_with(Features::new).take(BATCH).collect();
        let setup = EmbeddingSetup {
            model: hex(&sha256),
            precision: format!("{:?}", engine.precision()),
            side_px: config.side_px,
            dim: engine.spec().dim,
        };
        Ok(Self { engine, setup, features })
    }

    pub(super) fn setup(&self) -> &EmbeddingSetup {
        &self.setup
    }

    /// Scans what of the dataset was not scanned yet, into `folder`.
    pub(super) fn scan(
        &mut self,
        dataset: &Dataset,
        folder: &Path,
        step: &mut dyn FnMut(f64),
    ) -> Result<Scan, CurateError> {
        fs::create_dir_all(folder).map_err(CurateError::file(folder))?;
        let dim = self.setup.dim;
        self.check_origin(dataset, folder)?;
        let (mut facts_file, mut facts) = resume_facts(&folder.join("facts.jsonl"))?;
        let embeddings_path = folder.join("embeddings.f16");
        let mut embeddings_file = open(&embeddings_path)?;
        let row_bytes = dim as u64 * 2;
        let rows = embeddings_file.metadata().map_err(CurateError::file(&embeddings_path))?.len() / row_bytes;
        // Embeddings are written first, so there are fewer only if the file was truncated.
        if rows < facts.len() as u64 {
            facts.clear();
            facts_file.set_len(0).map_err(CurateError::file(folder))?;
        }
        embeddings_file
            .set_len(facts.len() as u64 * row_bytes)
            .map_err(CurateError::file(&embeddings_path))?;
        let mut embeddings = Embeddings::read(&embeddings_path, dim, facts.len())?;
        embeddings.reserve(dataset.len() - facts.len());
        while facts.len() < dataset.len() {
            let from = facts.len();
            let chunk = (from..dataset.len().min(from + CHUNK))
                .into_par_iter()
                .map_init(Resampler::default, |resampler, sample| {
                    scan_image(dataset, sample, self.setup.side_px, resampler)
                })
                .collect::<Result<Vec<_>, _>>()?;
            self.embed(&chunk, &mut embeddings)?;
            embeddings.write_from(from, &mut embeddings_file).map_err(CurateError::file(&embeddings_path))?;
            facts.extend(chunk.into_iter().map(|scanned| scanned.fact));
            append_lines(&mut facts_file, &facts[from..]).map_err(CurateError::file(folder))?;
            step(facts.len() as f64 / dataset.len() as f64);
        }
        Ok(Scan { facts, embeddings })
    }

    /// Notes what is scanned here, or checks that it is the same.
    fn check_origin(&self, dataset: &Dataset, folder: &Path) -> Result<(), CurateError> {
        let origin = Origin {
            samples: dataset.len(),
            dataset: hex(&dataset.fingerprint()),
            setup: self.setup.clone(),
        };
        let path = folder.join("scan.json");
        let Ok(known) = fs::read(&path) else {
            let text = serde_json::to_vec_pretty(&origin).expect("plain data can be written");
            return write_bytes(&path, &text).map_err(CurateError::file(&path));
        };
        if serde_json::from_slice::<Origin>(&known).is_ok_and(|known| known == origin) {
            return Ok(());
        }
        let got = String::from_utf8_lossy(&known[..known.len().min(600)]).into_owned();
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(CurateError::OtherScan {
            expected: format!("{origin:?}"),
            got: one_line(&got),
            path: folder.display().to_string(),
        })
    }

    /// Appends an embedding for each image of the chunk.
    fn embed(&mut self, chunk: &[ScannedImage], embeddings: &mut Embeddings) -> Result<(), CurateError> {
        let dim = self.setup.dim;
        let mut classes = vec![0.0; chunk.len() * dim];
        let usable: Vec<usize> = (0..chunk.len()).filter(|&index| !chunk[index].pixels.is_empty()).collect();
        for batch in usable.chunks(BATCH) {
            let views: Vec<_> = batch
                .iter()
                .map(|&index| ImageView::new(&chunk[index].pixels, self.setup.side_px, self.setup.side_px))
                .map(|view| view.expect("images were brought to the side"))
                .collect();
            let features = &mut self.features[..batch.len()];
            self.engine.extract_batch(&views, &Taps::none(), features)?;
            for (&index, features) in batch.iter().zip(features) {
                classes[index * dim..][..dim].copy_from_slice(features.cls());
            }
        }
        embeddings.push(&classes);
        Ok(())
    }
}

/// Reads, hashes and resizes an image; it is embedded later.
///
/// # Errors
/// An object store that is out of reach: nothing is known of the image then.
fn scan_image(
    dataset: &Dataset,
    sample: usize,
    side_px: usize,
    resampler: &mut Resampler,
) -> Result<ScannedImage, DataError> {
    let unusable = |fact: ImageFacts, error: String| {
        Ok(ScannedImage { fact: ImageFacts { error: Some(error), ..fact }, pixels: Vec::new() })
    };
    let encoded = match dataset.read(sample) {
        Ok(encoded) => encoded,
        Err(error @ DataError::Remote { .. }) => return Err(error),
        Err(error) => return unusable(ImageFacts::default(), chain(&error)),
    };
    let mut fact = ImageFacts {
        sha256: hex(&Sha256::digest(&encoded)),
        bytes: encoded.len() as u64,
        ..ImageFacts::default()
    };
    // A panic of the decoder counts as a broken image.
    let image = match std::panic::catch_unwind(|| Image::decode(&encoded)) {
        Ok(Ok(image)) => image,
        Ok(Err(error)) => return unusable(fact, chain(&error)),
        Err(_) => return unusable(fact, "the decoder panicked".into()),
    };
    (fact.width_px, fact.height_px) = (image.width_px, image.height_px);
    fact.hash = perceptual_hash(&image, resampler);
    let mut pixels = Vec::new();
    resampler.resize(&image.pixels, (image.width_px, image.height_px), (side_px, side_px), &mut pixels);
    Ok(ScannedImage { fact, pixels })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn open(path: &PathBuf) -> Result<File, CurateError> {
    OpenOptions::new().create(true).read(true).append(true).open(path).map_err(CurateError::file(path))
}

/// The complete lines of an earlier run; the rest of the file is cut off.
fn resume_facts(path: &PathBuf) -> Result<(File, Vec<ImageFacts>), CurateError> {
    let file = open(path)?;
    let (mut facts, mut kept, mut line) = (Vec::new(), 0, Vec::new());
    let mut reader = BufReader::new(&file);
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line).map_err(CurateError::file(path))?;
        match serde_json::from_slice(&line) {
            Ok(fact) if line.ends_with(b"\n") => facts.push(fact),
            _ => break,
        }
        kept += bytes as u64;
    }
    drop(reader);
    file.set_len(kept).map_err(CurateError::file(path))?;
    Ok((file, facts))
}

fn append_lines(file: &mut File, facts: &[ImageFacts]) -> std::io::Result<()> {
    let mut writer = BufWriter::new(file);
    for fact in facts {
        serde_json::to_writer(&mut writer, fact)?;
        writer.write_all(b"\n")?;
    }
    writer.flush()
}
