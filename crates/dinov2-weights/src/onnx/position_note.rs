//! The stored position table of a model, carried in the metadata of an exported ONNX file.
//!
//! A static export bakes the table of one grid into the graph and a dynamic one takes it as an input; in both the
//! stored table would be lost. As metadata it costs runtimes nothing, and the file imports without loss.

use dinov2_core::{PatchGrid, PositionConvention, limits};

use super::proto::{ModelProto, StringStringEntryProto};

const GRID_KEY: &str = "dinov2_edge.position_grid";
const CONVENTION_KEY: &str = "dinov2_edge.position_convention";
const TABLE_KEY: &str = "dinov2_edge.position_table";

const CONVENTIONS: [(PositionConvention, &str); 3] = [
    (PositionConvention::OfficialScaleFactor, "official_scale_factor"),
    (PositionConvention::ExactSize, "exact_size"),
    (PositionConvention::ExactSizeAntialias, "exact_size_antialias"),
];

/// A position table with its grid and the way it is resampled.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionNote {
    /// Grid of the table.
    pub grid: PatchGrid,
    /// How it becomes the table of another grid.
    pub convention: PositionConvention,
    /// `[1 + rows * cols, dim]`, row 0 for CLS.
    pub table: Vec<f32>,
}

impl PositionNote {
    /// The note as metadata of a file: grid as `ROWSxCOLS`, table as hexadecimal little-endian f32.
    pub fn entries(&self) -> Vec<StringStringEntryProto> {
        let known = CONVENTIONS.iter().find(|(convention, _)| *convention == self.convention);
        let convention = known.map_or("", |(_, name)| name);
        let mut table = String::with_capacity(self.table.len() * 8);
        for byte in self.table.iter().flat_map(|value| value.to_le_bytes()) {
            for digit in [byte >> 4, byte & 15] {
                table.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
            }
        }
        let values = [self.grid.to_string(), convention.to_string(), table];
        let keys = [GRID_KEY, CONVENTION_KEY, TABLE_KEY];
        keys.iter()
            .zip(values)
            .map(|(key, value)| StringStringEntryProto { key: key.to_string(), value })
            .collect()
    }

    /// Reads the note of a file for a model of width `dim`; `None` if the file has none.
    ///
    /// # Errors
    /// A note that is incomplete or contradicts itself.
    pub fn of(model: &ModelProto, dim: usize) -> Result<Option<Self>, String> {
        let entry =
            |key: &str| model.metadata_props.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let Some(digits) = entry(TABLE_KEY) else { return Ok(None) };
        let grid = entry(GRID_KEY).and_then(|text| parse_grid(text));
        let grid = grid.ok_or_else(|| format!("metadata {GRID_KEY:?}: expected ROWSxCOLS"))?;
        let convention =
            entry(CONVENTION_KEY).and_then(|text| CONVENTIONS.iter().find(|(_, name)| name == text));
        let &(convention, _) =
            convention.ok_or_else(|| format!("metadata {CONVENTION_KEY:?}: expected a convention"))?;
        let expected = (1 + grid.len()).checked_mul(dim).and_then(|count| count.checked_mul(8));
        if expected != Some(digits.len()) {
            return Err(format!(
                "metadata {TABLE_KEY:?}: expected a table for {grid}, got {} digits",
                digits.len()
            ));
        }
        let table = digits.as_bytes().as_chunks::<8>().0.iter().map(parse_f32).collect::<Option<Vec<f32>>>();
        let table = table.ok_or_else(|| format!("metadata {TABLE_KEY:?}: expected hexadecimal digits"))?;
        Ok(Some(Self { grid, convention, table }))
    }
}

fn parse_grid(text: &str) -> Option<PatchGrid> {
    let (rows, cols) = text.split_once('x')?;
    let side = |digits: &str| digits.parse().ok().filter(|side| (1..=limits::MAX_TABLE_SIDE).contains(side));
    Some(PatchGrid { rows: side(rows)?, cols: side(cols)? })
}

fn parse_f32(digits: &[u8; 8]) -> Option<f32> {
    let mut bytes = [0; 4];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(f32::from_le_bytes(bytes))
}
