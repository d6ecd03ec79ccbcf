//! The ignored label of a sequence's label maps.

use std::path::Path;

use dinov2_eval::{LabelSet, labels_in};
use dinov2_io::PairedImages;

use super::EvalError;
use super::pairs::read_labels;

/// The void label of DAVIS 2017, and the object of DAVIS 2016.
pub(super) const VOID: u8 = 255;

/// The label of ignored pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignore {
    /// 255, except in a sequence whose label maps hold only 0 (the background) and 255: there 255 is the object, as in DAVIS
    /// 2016. An error if both kinds occur in one set.
    #[default]
    ByContent,
    /// No pixel is ignored.
    Nothing,
    /// A given label.
    Label(u8),
}

impl Ignore {
    /// The ignored label of every sequence.
    ///
    /// # Errors
    /// Label maps in colour, and sequences in which 255 means different things.
    pub(super) fn decide(
        self,
        sequences: &[PairedImages],
        background: Option<u8>,
    ) -> Result<Vec<Option<u8>>, EvalError> {
        match self {
            Self::Nothing => return Ok(vec![None; sequences.len()]),
            Self::Label(label) => return Ok(vec![Some(label); sequences.len()]),
            Self::ByContent => {}
        }
        let set = sequences.iter().map(all_labels).collect::<Result<Vec<_>, _>>()?;
        let is_mask = |set: &LabelSet| background == Some(0) && labels_in(set) == [0, VOID];
        let has_void = |set: &LabelSet| set[usize::from(VOID)] && labels_in(set).len() > 2;
        let (mask, void) = (set.iter().position(is_mask), set.iter().position(has_void));
        if let (Some(mask), Some(void)) = (mask, void) {
            return Err(EvalError::input(
                "sequences",
                "--ignore 255 or --ignore none, because it is not clear what label 255 is",
                format!(
                    "{} with nothing but 0 and 255, {} with {}",
                    name(&sequences[mask]).display(),
                    name(&sequences[void]).display(),
                    in_words(&set[void])
                ),
            ));
        }
        Ok(set.iter().map(|set| (!is_mask(set)).then_some(VOID)).collect())
    }
}

/// Labels of all readable maps of a sequence. The others are reported when they are used.
fn all_labels(sequence: &PairedImages) -> Result<LabelSet, EvalError> {
    let mut set = [false; 256];
    for (_, path) in sequence.iter() {
        match read_labels(path) {
            Ok(labels) => labels.pixels.iter().for_each(|label| set[usize::from(*label)] = true),
            Err(EvalError::Unreadable(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(set)
}

/// Most labels that a message names.
const NAMED: usize = 8;

/// `labels 0, 1 and 255`; of many the first ones and the last.
pub(super) fn in_words(set: &LabelSet) -> String {
    let all = labels_in(set);
    let words: Vec<String> = all.iter().map(u8::to_string).collect();
    match &words[..] {
        [] => "no labels".into(),
        [one] => format!("label {one} alone"),
        [first @ .., last] if first.len() < NAMED => format!("labels {} and {last}", first.join(", ")),
        [first @ .., last] => {
            format!("{} labels, {}, … and {last}", all.len(), first[..NAMED].join(", "))
        }
    }
}

/// The folder of a sequence's frames.
pub(super) fn name(sequence: &PairedImages) -> &Path {
    let first = sequence.iter().next().map(|(frame, _)| frame);
    first.and_then(Path::parent).unwrap_or(Path::new(""))
}
