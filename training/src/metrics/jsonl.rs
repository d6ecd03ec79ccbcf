//! `metrics.jsonl`: an object per line, `{"step":7,"unix_s":1763770000.5,"loss":0.25,…}`. A number that is not finite is `null`,
//! because JSON has none.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::ser::{SerializeMap, Serializer};

use super::MetricsError;

/// Longest accepted line: some 10,000 numbers.
const MAX_LINE_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct JsonLines {
    file: File,
    path: PathBuf,
    line: Vec<u8>,
}

/// What cutting back reads of a line.
#[derive(Deserialize)]
struct Stamp {
    step: u64,
}

impl JsonLines {
    /// A new file, or the one that is there, without the lines of steps after `resume_step`.
    pub(super) fn open(path: PathBuf, resume_step: Option<u64>) -> Result<Self, MetricsError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let opened = match resume_step {
            None => options.create_new(true).open(&path),
            Some(_) => options.create(true).truncate(false).open(&path),
        };
        let mut file = opened.map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => MetricsError::Exists { path: path.display().to_string() },
            _ => MetricsError::Write { source, path: path.display().to_string() },
        })?;
        if let Some(step) = resume_step {
            let kept = kept_bytes(&file, &path, step)?;
            file.set_len(kept).map_err(MetricsError::write(&path))?;
            file.seek(SeekFrom::End(0)).map_err(MetricsError::write(&path))?;
        }
        Ok(Self { file, path, line: Vec::new() })
    }

    /// Writes a line; the system has it afterwards.
    pub(super) fn write(
        &mut self,
        step: u64,
        unix_s: f64,
        scalars: &[(String, f64)],
    ) -> Result<(), MetricsError> {
        self.line.clear();
        encode(&mut self.line, step, unix_s, scalars).expect("numbers and strings are JSON");
        self.line.push(b'\n');
        // In one write, so that a killed run leaves whole lines.
        self.file.write_all(&self.line).map_err(MetricsError::write(&self.path))
    }
}

fn encode(
    line: &mut Vec<u8>,
    step: u64,
    unix_s: f64,
    scalars: &[(String, f64)],
) -> Result<(), serde_json::Error> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut object = serializer.serialize_map(Some(2 + scalars.len()))?;
    object.serialize_entry("step", &step)?;
    object.serialize_entry("unix_s", &unix_s)?;
    for (name, value) in scalars {
        object.serialize_entry(name, value)?;
    }
    object.end()
}

/// Length of the lines up to and including those of `step`. An incomplete last line is not counted.
fn kept_bytes(file: &File, path: &Path, step: u64) -> Result<u64, MetricsError> {
    let mut reader = BufReader::new(file);
    let (mut kept, mut line) = (0, Vec::new());
    for number in 1.. {
        line.clear();
        let bytes = (&mut reader)
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(MetricsError::read(path))? as u64;
        if line.last() != Some(&b'\n') && bytes < MAX_LINE_BYTES {
            break;
        }
        let stamp: Stamp = serde_json::from_slice(&line).map_err(|_| MetricsError::Line {
            expected: "a JSON object with a step",
            got: format!("{:?}", String::from_utf8_lossy(&line[..line.len().min(60)])),
            line: number,
            path: path.display().to_string(),
        })?;
        if stamp.step > step {
            break;
        }
        kept += bytes;
    }
    Ok(kept)
}
