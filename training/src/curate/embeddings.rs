//! Embeddings in 16-bit floats, in memory and in a file that numpy reads.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{CurateError, Points};

/// Unit vectors in 16-bit floats: `[rows, dim]`, 0.77 kB each for a ViT-S. A file holds nothing else, so
/// `numpy.memmap(path, "<f2").reshape(-1, dim)` reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    dim: usize,
    numbers: Vec<f16>,
}

impl Embeddings {
    /// Without rows.
    ///
    /// # Panics
    /// If `dim` is zero.
    pub fn new(dim: usize) -> Self {
        assert!(dim > 0, "embeddings: expected a positive dimension");
        Self { dim, numbers: Vec::new() }
    }

    /// Reserves room for more rows: growing step by step would need up to three times the memory.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.numbers.reserve_exact(rows * self.dim);
    }

    /// Appends vectors `[n, dim]`, each scaled to length 1; one without length stays zero.
    ///
    /// # Panics
    /// If the numbers are no whole vectors.
    pub fn push(&mut self, vectors: &[f32]) {
        assert!(vectors.len().is_multiple_of(self.dim), "embeddings: expected [n, {}]", self.dim);
        for vector in vectors.chunks_exact(self.dim) {
            let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            let scale = if length > 0.0 { (1.0 / length) as f32 } else { 0.0 };
            self.numbers.extend(vector.iter().map(|value| f16::from_f32(value * scale)));
        }
    }

    /// Writes the vectors from row `from` on: little endian.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn write_from(&self, from: usize, out: &mut impl Write) -> std::io::Result<()> {
        let bytes: Vec<u8> =
            self.numbers[from * self.dim..].iter().flat_map(|number| number.to_le_bytes()).collect();
        out.write_all(&bytes)
    }

    /// Reads `rows` vectors.
    pub(super) fn read(path: &Path, dim: usize, rows: usize) -> Result<Self, CurateError> {
        let mut reader = BufReader::new(File::open(path).map_err(CurateError::file(path))?);
        let mut numbers = Vec::with_capacity(rows * dim);
        let mut row = vec![0; dim * 2];
        for _ in 0..rows {
            reader.read_exact(&mut row).map_err(CurateError::file(path))?;
            numbers.extend(row.as_chunks::<2>().0.iter().map(|bytes| f16::from_le_bytes(*bytes)));
        }
        Ok(Self { dim, numbers })
    }
}

impl Points for Embeddings {
    fn len(&self) -> usize {
        self.numbers.len() / self.dim
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn write(&self, index: usize, out: &mut [f32]) {
        self.numbers[index * self.dim..][..self.dim].convert_to_f32_slice(out);
    }
}
