//! Named outputs of heads: maps, masks, boxes, vectors, scores and colours.
//!
//! Sinks show and store any [`HeadOutput`] by its kind, without knowing the head that made it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{PatchGrid, PixelRect};

/// One output of a head for one frame. Grids are the patch grid of the frame or finer; row 0 is at the top. The enum is not
/// `non_exhaustive`, so that the compiler lists the sinks that must handle a new kind.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadOutput {
    /// A number per cell, `[rows, cols]`: a similarity, a depth, an anomaly.
    Map {
        /// Rows and columns.
        grid: PatchGrid,
        /// Row-major.
        values: Vec<f32>,
    },
    /// A class per cell, `[rows, cols]`: a segmentation.
    Mask {
        /// Rows and columns.
        grid: PatchGrid,
        /// Row-major class numbers.
        classes: Vec<u8>,
    },
    /// Rectangles in pixels of the engine's input image.
    Boxes(Vec<ScoredBox>),
    /// One vector for the frame, such as a descriptor.
    Vector(Vec<f32>),
    /// One number for the frame.
    Score(f32),
    /// A colour per cell, `[rows, cols, 3]`: red, green, blue.
    Colours {
        /// Rows and columns.
        grid: PatchGrid,
        /// Row-major RGB.
        rgb: Vec<u8>,
    },
}

/// A rectangle with its score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScoredBox {
    /// In pixels of the engine's input image.
    pub rect: PixelRect,
    /// Confidence; higher is more certain.
    pub score: f32,
    /// Class number.
    pub class: u32,
}

impl HeadOutput {
    /// Name of the kind: `map`, `mask`, `boxes`, `vector`, `score` or `colours`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Map { .. } => "map",
            Self::Mask { .. } => "mask",
            Self::Boxes(_) => "boxes",
            Self::Vector(_) => "vector",
            Self::Score(_) => "score",
            Self::Colours { .. } => "colours",
        }
    }
}

/// The outputs of one frame, by name. [`Self::clear`] keeps the buffers, so that frames of one size allocate once.
///
/// ```
/// use dinov2_core::{HeadOutput, HeadOutputs, PatchGrid};
///
/// let grid = PatchGrid { rows: 1, cols: 2 };
/// let mut outputs = HeadOutputs::new();
/// outputs.map("similarity", grid).extend([0.5, -0.25]);
/// assert_eq!(outputs.get("similarity"), Some(&HeadOutput::Map { grid, values: vec![0.5, -0.25] }));
/// outputs.clear();
/// assert!(outputs.get("similarity").is_none());
/// ```
#[derive(Clone, Debug, Default)]
pub struct HeadOutputs {
    slots: Vec<Slot>,
}

#[derive(Clone, Debug)]
struct Slot {
    name: String,
    output: HeadOutput,
    is_set: bool,
}

impl HeadOutputs {
    /// No outputs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all outputs and keeps their buffers.
    pub fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.is_set = false);
    }

    /// The output of this name.
    pub fn get(&self, name: &str) -> Option<&HeadOutput> {
        self.iter().find(|(known, _)| *known == name).map(|(_, output)| output)
    }

    /// All outputs with their names, in the order in which the names were first used.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HeadOutput)> {
        self.slots.iter().filter(|slot| slot.is_set).map(|slot| (slot.name.as_str(), &slot.output))
    }

    /// The outputs of these heads: those named `HEAD` or `HEAD.PART`.
    pub fn of<'a>(&'a self, heads: &[String]) -> Vec<(&'a str, &'a HeadOutput)> {
        let is_of = |output: &str, head: &String| {
            output.strip_prefix(head.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.iter().filter(|(name, _)| heads.iter().any(|head| is_of(name, head))).collect()
    }

    /// An empty [`HeadOutput::Map`] to be filled with `rows * cols` values.
    pub fn map(&mut self, name: &str, grid: PatchGrid) -> &mut Vec<f32> {
        let output = self.slot(
            name,
            |output| matches!(output, HeadOutput::Map { .. }),
            || HeadOutput::Map { grid, values: Vec::new() },
        );
        let HeadOutput::Map { grid: old, values } = output else { unreachable!("a slot of this kind") };
        *old = grid;
        values.clear();
        values
    }

    /// An empty [`HeadOutput::Mask`] to be filled with `rows * cols` classes.
    pub fn mask(&mut self, name: &str, grid: PatchGrid) -> &mut Vec<u8> {
        let output = self.slot(
            name,
            |output| matches!(output, HeadOutput::Mask { .. }),
            || HeadOutput::Mask { grid, classes: Vec::new() },
        );
        let HeadOutput::Mask { grid: old, classes } = output else { unreachable!("a slot of this kind") };
        *old = grid;
        classes.clear();
        classes
    }

    /// Empty [`HeadOutput::Colours`] to be filled with `rows * cols * 3` bytes.
    pub fn colours(&mut self, name: &str, grid: PatchGrid) -> &mut Vec<u8> {
        let output = self.slot(
            name,
            |output| matches!(output, HeadOutput::Colours { .. }),
            || HeadOutput::Colours { grid, rgb: Vec::new() },
        );
        let HeadOutput::Colours { grid: old, rgb } = output else { unreachable!("a slot of this kind") };
        *old = grid;
        rgb.clear();
        rgb
    }

    /// An empty [`HeadOutput::Boxes`].
    pub fn boxes(&mut self, name: &str) -> &mut Vec<ScoredBox> {
        let output = self.slot(
            name,
            |output| matches!(output, HeadOutput::Boxes(_)),
            || HeadOutput::Boxes(Vec::new()),
        );
        let HeadOutput::Boxes(boxes) = output else { unreachable!("a slot of this kind") };
        boxes.clear();
        boxes
    }

    /// An empty [`HeadOutput::Vector`].
    pub fn vector(&mut self, name: &str) -> &mut Vec<f32> {
        let output = self.slot(
            name,
            |output| matches!(output, HeadOutput::Vector(_)),
            || HeadOutput::Vector(Vec::new()),
        );
        let HeadOutput::Vector(values) = output else { unreachable!("a slot of this kind") };
        values.clear();
        values
    }

    /// Sets an [`HeadOutput::Score`].
    pub fn score(&mut self, name: &str, value: f32) {
        *self.slot(name, |output| matches!(output, HeadOutput::Score(_)), || HeadOutput::Score(value)) =
            HeadOutput::Score(value);
    }

    /// The slot of this name, marked as set; an output of another kind is replaced by `empty`.
    fn slot(
        &mut self,
        name: &str,
        is_kind: fn(&HeadOutput) -> bool,
        empty: impl FnOnce() -> HeadOutput,
    ) -> &mut HeadOutput {
        let at = match self.slots.iter().position(|slot| slot.name == name) {
            Some(at) => at,
            None => {
                self.slots.push(Slot { name: name.into(), output: HeadOutput::Score(0.0), is_set: false });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[at];
        slot.is_set = true;
        if !is_kind(&slot.output) {
            slot.output = empty();
        }
        &mut slot.output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_may_change_its_kind_and_order_stays() {
        let mut outputs = HeadOutputs::new();
        outputs.score("b", 1.0);
        outputs.vector("a").push(2.0);
        outputs.clear();
        outputs.boxes("b").push(ScoredBox::default());
        outputs.score("a", 3.0);
        let names: Vec<_> = outputs.iter().map(|(name, output)| (name, output.kind())).collect();
        assert_eq!(names, [("b", "boxes"), ("a", "score")]);
    }

    #[test]
    fn buffers_survive_clearing() {
        let grid = PatchGrid { rows: 2, cols: 2 };
        let mut outputs = HeadOutputs::new();
        let values = outputs.map("map", grid);
        values.extend([1.0; 4]);
        let before = values.as_ptr();
        outputs.clear();
        let values = outputs.map("map", grid);
        assert!(values.is_empty() && values.capacity() >= 4 && values.as_ptr() == before);
    }
}
