//! The table of results: a row per figure, a column per model.

use std::fmt::Write;

use serde::Serialize;

/// Unit of a figure, which decides its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unit {
    /// A share of 1, written in per cent.
    Share,
    /// A cosine or another similarity of at most 1.
    Similarity,
    /// Metres.
    Metres,
    /// Milliseconds.
    Milliseconds,
    /// Pixels.
    Pixels,
    /// A number without a unit.
    Ratio,
}

/// Properties of a model for the head of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelFacts {
    /// Stem of the file and the precision.
    pub name: String,
    /// The file.
    pub path: String,
    /// Precision: `f32`, `half` or `int8`.
    pub precision: &'static str,
    /// Architecture, such as `ViT-S/14`.
    pub architecture: String,
    /// Width of a feature.
    pub dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Numbers in all tensors, scales not counted.
    pub parameters: u64,
    /// Size of the file.
    pub file_bytes: usize,
}

/// One figure of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The task, such as `segmentation 252`.
    pub task: String,
    /// The measure, such as `mIoU`.
    pub name: String,
    /// Unit of the value.
    pub unit: Unit,
    /// The figure.
    pub value: f64,
}

impl Measure {
    /// A figure of a task.
    pub fn new(task: &str, name: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { task: task.into(), name: name.into(), unit, value }
    }

    /// The size of the images that a task shows to a model.
    pub fn image_side(task: &str, side_px: usize) -> Self {
        Self::new(task, "short side of the images", Unit::Pixels, side_px as f64)
    }
}

/// A row of a [`Report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The task.
    pub task: String,
    /// The measure.
    pub measure: String,
    /// Unit of the values.
    pub unit: Unit,
    /// One per model, in the order of [`Report::models`]; `None` where it was not measured.
    pub values: Vec<Option<f64>>,
}

/// Results of several models.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The columns.
    pub models: Vec<ModelFacts>,
    /// The rows, in the order in which they were first measured.
    pub rows: Vec<Row>,
    /// Notes on data, sizes and protocols.
    pub notes: Vec<String>,
}

impl Report {
    /// Without figures.
    pub fn new(models: Vec<ModelFacts>) -> Self {
        Self { models, rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds the figures of the model of a column.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn add(&mut self, model: usize, measures: Vec<Measure>) {
        assert!(model < self.models.len(), "model: expected less than {}, got {model}", self.models.len());
        for Measure { task, name, unit, value } in measures {
            let place = self.rows.iter().position(|row| row.task == task && row.measure == name);
            let place = place.unwrap_or_else(|| {
                let values = vec![None; self.models.len()];
                self.rows.push(Row { task, measure: name, unit, values });
                self.rows.len() - 1
            });
            self.rows[place].values[model] = Some(value);
        }
    }

    /// Adds a note, once.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// One JSON object; values as measured, null where they are missing or not finite.
    ///
    /// # Panics
    /// Never: everything in it is a number or a string.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON")
    }

    /// A table in Markdown, and the notes under it.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let facts =
            |of: &dyn Fn(&ModelFacts) -> String| -> Vec<String> { self.models.iter().map(of).collect() };
        let mut lines = vec![
            line("", "", facts(&|model| cell(&model.name))),
            format!("|---|---|{}", "---:|".repeat(self.models.len())),
            line(
                "model",
                "architecture",
                facts(&|model| format!("{}, {} blocks", model.architecture, model.depth)),
            ),
            line("", "parameters", facts(&|model| format!("{:.1} M", model.parameters as f64 / 1e6))),
            line("", "file", facts(&|model| format!("{:.1} MB", model.file_bytes as f64 / 1e6))),
        ];
        let mut last = "";
        for row in &self.rows {
            let task = if row.task == last { "" } else { &row.task };
            last = &row.task;
            let values = row.values.iter().map(|value| figure(*value, row.unit)).collect();
            lines.push(line(&cell(task), &cell(&row.measure), values));
        }
        for line in lines {
            writeln!(text, "{line}").expect("writing to a string succeeds");
        }
        for note in &self.notes {
            write!(text, "\n- {note}").expect("writing to a string succeeds");
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        text
    }
}

fn line(task: &str, measure: &str, values: Vec<String>) -> String {
    format!("| {task} | {measure} | {} |", values.join(" | "))
}

/// Text with the characters escaped that would end a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn figure(value: Option<f64>, unit: Unit) -> String {
    let Some(value) = value.filter(|value| value.is_finite()) else { return "–".into() };
    match unit {
        Unit::Share => format!("{:.2} %", value * 100.0),
        Unit::Similarity => format!("{value:.4}"),
        Unit::Metres => format!("{value:.3} m"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Pixels => format!("{value} px"),
        Unit::Ratio => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(name: &str) -> ModelFacts {
        ModelFacts {
            name: name.into(),
            path: format!("{name}.safetensors"),
            precision: "f32",
            architecture: "ViT-S/14".into(),
            dim: 384,
            depth: 12,
            patch_size: 14,
            parameters: 22_056_576,
            file_bytes: 88_241_056,
        }
    }

    #[test]
    fn models_stand_beside_each_other() {
        let mut report = Report::new(vec![facts("a"), facts("b|c")]);
        report.add(0, vec![Measure::new("kNN", "k = 10", Unit::Share, 0.81256)]);
        report.add(
            1,
            vec![
                Measure::new("kNN", "k = 10", Unit::Share, 0.75),
                Measure::new("kNN", "k = 20", Unit::Share, f64::NAN),
                Measure::new("fidelity", "patch cosine, median", Unit::Similarity, 0.98765),
            ],
        );
        report.note("ten images".into());
        report.note("ten images".into());
        let expected = "\
|  |  | a | b\\|c |
|---|---|---:|---:|
| model | architecture | ViT-S/14, 12 blocks | ViT-S/14, 12 blocks |
|  | parameters | 22.1 M | 22.1 M |
|  | file | 88.2 MB | 88.2 MB |
| kNN | k = 10 | 81.26 % | 75.00 % |
|  | k = 20 | – | – |
| fidelity | patch cosine, median | – | 0.9877 |

- ten images
";
        assert_eq!(report.markdown(), expected);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["rows"][0]["values"], serde_json::json!([0.81256, 0.75]));
        assert_eq!(json["rows"][1]["values"], serde_json::json!([null, null]));
        assert_eq!(json["rows"][2]["unit"], "similarity");
        assert_eq!(json["models"][1]["parameters"], 22_056_576);
    }
}
