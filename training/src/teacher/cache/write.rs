//! Writes a cache, shard by shard; a shard that is there already is kept.

use std::ops::Range;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use candle_core::{DType, Tensor};
use half::f16;
use safetensors::tensor::TensorView;

use super::compress::{Basis, Encoded};
use super::format::{CacheError, CacheManifest, held_out_path, shard_path};
use super::{Compression, read};
use crate::data::{Dataset, Loader, LoaderPlan, UnreadableList, held_out};
use crate::files::remove_partial;
use crate::loss::{Statistics, Targets};
use crate::recipe::Recipe;
use crate::stop::Stop;
use crate::teacher::Teacher;

/// Settings of writing a cache.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// The recipe: views, steps and taps.
    pub recipe: Recipe,
    /// Folder of the cache.
    pub output: PathBuf,
    /// Number format.
    pub compression: Compression,
    /// Identity of the teacher.
    pub teacher: String,
    /// Threads that load images.
    pub workers: usize,
    /// Stops the work after the step in progress.
    pub stop: Stop,
}

/// Progress of writing a cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheProgress {
    /// Steps done.
    pub steps: u64,
    /// Images of the last step.
    pub images: usize,
}

/// Computes and writes the targets of all steps of a recipe; returns the number of steps written, which is all unless a stop is
/// requested. Existing shards are kept; a shard is written when it is complete.
///
/// # Errors
/// Images, teacher or files that fail; a folder with a cache of other inputs.
pub fn write_cache(
    config: &CacheConfig,
    teacher: &mut dyn Teacher,
    dataset: Dataset,
    progress: &mut dyn FnMut(CacheProgress),
) -> Result<u64, CacheError> {
    let folder = &config.output;
    std::fs::create_dir_all(folder).map_err(CacheError::file("create", folder))?;
    remove_partial(folder).map_err(CacheError::file("clear", folder))?;
    let fingerprint = dataset.fingerprint_hex();
    let manifest = CacheManifest::new(
        teacher.spec().clone(),
        config.teacher.clone(),
        fingerprint.clone(),
        config.recipe.clone(),
        config.compression,
    );
    if let Some(before) = CacheManifest::read(folder)? {
        before.check(folder, &config.teacher, &fingerprint, &config.recipe)?;
        if before.compression != config.compression {
            return Err(CacheError::Other { what: "form (--storage)", path: folder.clone() });
        }
    }
    let (train, held_out) = dataset.split(config.recipe.validation_images, config.recipe.seed);
    let path = folder.join("unreadable.txt");
    let mut unreadable = UnreadableList::open(path.clone()).map_err(CacheError::file("read", &path))?;
    let basis = basis(config, teacher, &held_out, folder, &mut unreadable)?;
    let mut writer = Writer { basis, unreadable };
    manifest.write(folder)?;
    let train = Arc::new(train);
    config.stop.heed();
    let total = config.recipe.steps();
    let mut step = 0;
    while step < total {
        let next = total.min(step + manifest.shard_steps);
        if config.stop.is_requested()
            || !shard_path(folder, step).exists()
                && !writer.shard(config, teacher, &train, step..next, progress)?
        {
            break;
        }
        step = next;
        progress(CacheProgress { steps: step, images: 0 });
    }
    Ok(step)
}

/// Writes the targets of held-out images and, for int8, the basis.
fn basis(
    config: &CacheConfig,
    teacher: &mut dyn Teacher,
    images: &Dataset,
    folder: &Path,
    unreadable: &mut UnreadableList,
) -> Result<Option<Basis>, CacheError> {
    let path = held_out_path(folder);
    if path.exists() {
        return read::basis(&path, config.compression);
    }
    let mut parts = Vec::new();
    let mut statistics = Statistics::new(teacher.spec().dim);
    let (batches, not_seen) = held_out(images, &config.recipe.held_out_sides())?;
    unreadable.add(&not_seen).map_err(CacheError::file("write", unreadable.path()))?;
    for (index, batch) in batches.into_iter().enumerate() {
        let targets = teacher.targets(&batch)?;
        statistics.add(&targets.patches)?;
        for tap in &targets.taps {
            statistics.add(tap)?;
        }
        parts.extend(plain(&format!("h{index}"), &Targets { taps: Vec::new(), ..targets })?);
    }
    let basis = match config.compression {
        Compression::F16 => None,
        Compression::Int8 if parts.is_empty() => return Err(CacheError::NothingHeldOut),
        Compression::Int8 => Some(Basis::new(statistics.mean(), statistics.covariance())?),
    };
    if let Some(basis) = &basis {
        parts.push(Part::f32("basis.mean", &basis.mean)?);
        parts.push(Part::f32("basis.spread", &basis.spread)?);
        if let Some(directions) = &basis.directions {
            parts.push(Part::f32("basis.directions", directions)?);
        }
    }
    write_parts(&path, &parts)?;
    Ok(basis)
}

struct Writer {
    basis: Option<Basis>,
    unreadable: UnreadableList,
}

impl Writer {
    /// Computes and writes a shard; false if a stop was requested. Numbers are encoded in another thread, so that the teacher does not wait.
    fn shard(
        &mut self,
        config: &CacheConfig,
        teacher: &mut dyn Teacher,
        train: &Arc<Dataset>,
        steps: Range<u64>,
        progress: &mut dyn FnMut(CacheProgress),
    ) -> Result<bool, CacheError> {
        let path = shard_path(&config.output, steps.start);
        let (targets, of_steps) = sync_channel(1);
        let (parts, is_whole) = thread::scope(|scope| {
            let basis = self.basis.as_ref();
            let encoder = scope.spawn(move || encode(basis, of_steps));
            let computed = compute(config, teacher, train, steps, targets, &mut self.unreadable, progress);
            let parts = encoder.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            computed.map(|is_whole| (parts, is_whole))
        })?;
        if is_whole {
            write_parts(&path, &parts)?;
        }
        Ok(is_whole)
    }
}

fn encode(basis: Option<&Basis>, targets: Receiver<(u64, Targets)>) -> Result<Vec<Part>, CacheError> {
    let mut parts = Vec::new();
    for (step, targets) in targets {
        parts.extend(encoded(basis, &format!("s{step}"), &targets)?);
    }
    Ok(parts)
}

fn encoded(basis: Option<&Basis>, name: &str, targets: &Targets) -> Result<Vec<Part>, CacheError> {
    let Some(basis) = basis else { return plain(name, targets) };
    let mut parts = vec![Part::f16(format!("{name}.cls"), &targets.cls)?];
    for (part, tokens) in named(targets) {
        let Encoded { whole, shape, scale } = basis.encode(tokens)?;
        parts.push(Part {
            name: format!("{name}.{part}"),
            dtype: safetensors::Dtype::I8,
            shape: shape.to_vec(),
            bytes: whole.into_iter().map(|number| number as u8).collect(),
        });
        parts.push(Part {
            name: format!("{name}.{part}.scale"),
            dtype: safetensors::Dtype::F16,
            shape: vec![shape[0], shape[1], 1],
            bytes: scale.into_iter().flat_map(f16::to_le_bytes).collect(),
        });
    }
    Ok(parts)
}

/// Computes the targets of some steps and sends them; false if the receiver is gone or a stop was requested.
fn compute(
    config: &CacheConfig,
    teacher: &mut dyn Teacher,
    train: &Arc<Dataset>,
    steps: Range<u64>,
    targets: SyncSender<(u64, Targets)>,
    unreadable: &mut UnreadableList,
    progress: &mut dyn FnMut(CacheProgress),
) -> Result<bool, CacheError> {
    let mut step = steps.start;
    while step < steps.end {
        let Some(stage) = config.recipe.stage(step) else { break };
        let plan = LoaderPlan {
            seed: config.recipe.seed,
            batch: stage.batch,
            rank: 0,
            world: 1,
            workers: config.workers,
            ahead: 3,
        };
        let mut loader = Loader::new(Arc::clone(train), stage.views.clone(), plan, step)?;
        while step < steps.end && config.recipe.stage(step) == Some(stage) {
            let batch = loader.next()?;
            unreadable.add(&loader.unreadable()).map_err(CacheError::file("write", unreadable.path()))?;
            if targets.send((step, teacher.targets(&batch)?)).is_err() {
                return Ok(false);
            }
            step += 1;
            progress(CacheProgress { steps: step, images: batch.samples.len() });
            if config.stop.is_requested() && step < steps.end {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Targets in 16-bit floats.
fn plain(name: &str, targets: &Targets) -> Result<Vec<Part>, CacheError> {
    let mut parts = vec![Part::f16(format!("{name}.cls"), &targets.cls)?];
    for (part, tokens) in named(targets) {
        parts.push(Part::f16(format!("{name}.{part}"), tokens)?);
    }
    Ok(parts)
}

fn named(targets: &Targets) -> impl Iterator<Item = (String, &Tensor)> {
    let taps = targets.taps.iter().enumerate().map(|(index, tap)| (format!("tap{index}"), tap));
    std::iter::once(("patches".to_owned(), &targets.patches)).chain(taps)
}

/// A tensor in the file's format.
struct Part {
    name: String,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Part {
    fn numbers(tensor: &Tensor) -> Result<Vec<f32>, CacheError> {
        Ok(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    fn f32(name: impl Into<String>, tensor: &Tensor) -> Result<Self, CacheError> {
        let bytes = Self::numbers(tensor)?.into_iter().flat_map(f32::to_le_bytes).collect();
        Ok(Self { name: name.into(), dtype: safetensors::Dtype::F32, shape: tensor.dims().to_vec(), bytes })
    }

    fn f16(name: String, tensor: &Tensor) -> Result<Self, CacheError> {
        let halves = Self::numbers(tensor)?.into_iter().map(f16::from_f32);
        let bytes = halves.flat_map(f16::to_le_bytes).collect();
        Ok(Self { name, dtype: safetensors::Dtype::F16, shape: tensor.dims().to_vec(), bytes })
    }
}

fn write_parts(path: &Path, parts: &[Part]) -> Result<(), CacheError> {
    let views = parts.iter().map(|part| {
        TensorView::new(part.dtype, part.shape.clone(), &part.bytes).map(|view| (part.name.as_str(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(|error| CacheError::format(path, error))?;
    let whole = safetensors::serialize(views, None).map_err(|error| CacheError::format(path, error))?;
    crate::files::write_bytes(path, &whole).map_err(CacheError::file("write", path))
}
