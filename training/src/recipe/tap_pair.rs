//! Pairs of blocks in a recipe. Older recipes called them `student` and `teacher` and counted from 1: one that a user wrote is
//! refused with what to write instead, one that a checkpoint or a cache stored is converted.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A block of the student and the block of the teacher whose output it is to resemble. Blocks count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Keys")]
pub struct TapPair {
    /// Block of the student.
    pub student_block: usize,
    /// Block of the teacher.
    pub teacher_block: usize,
}

/// Today's keys and those that counted from 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    student_block: Option<usize>,
    teacher_block: Option<usize>,
    student: Option<usize>,
    teacher: Option<usize>,
}

impl TryFrom<Keys> for TapPair {
    type Error = String;

    fn try_from(keys: Keys) -> Result<Self, String> {
        const EXPECTED: &str =
            "loss.taps: expected student_block and teacher_block, which count blocks from 0";
        let Keys { student_block, teacher_block, student, teacher } = keys;
        match (student_block.zip(teacher_block), student.or(teacher)) {
            (Some((student_block, teacher_block)), None) => Ok(Self { student_block, teacher_block }),
            (_, None) => Err(EXPECTED.into()),
            (_, Some(_)) => {
                let pair = student
                    .and_then(|block| block.checked_sub(1))
                    .zip(teacher.and_then(|block| block.checked_sub(1)));
                let instead = pair.map_or_else(String::new, |(student, teacher)| {
                    format!("; write {{ student_block = {student}, teacher_block = {teacher} }} for the same blocks")
                });
                Err(format!("{EXPECTED}, got student and teacher, which counted from 1{instead}"))
            }
        }
    }
}

/// Converts the pairs of a stored recipe that count from 1. Anything else is left to deserialization.
pub(crate) fn upgrade_taps(recipe: &mut Value) {
    let pairs = recipe.pointer_mut("/loss/taps").and_then(Value::as_array_mut);
    for pair in pairs.into_iter().flatten() {
        let block = |key: &str| pair.get(key).and_then(Value::as_u64).and_then(|block| block.checked_sub(1));
        if let (Some(student), Some(teacher)) = (block("student"), block("teacher")) {
            *pair = serde_json::json!({ "student_block": student, "teacher_block": teacher });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_before_are_refused_with_what_to_write() {
        let error = |text: &str| toml::from_str::<TapPair>(text).unwrap_err().message().to_owned();
        assert_eq!(
            error("student = 3\nteacher = 10"),
            "loss.taps: expected student_block and teacher_block, which count blocks from 0, got student and teacher, which \
             counted from 1; write { student_block = 2, teacher_block = 9 } for the same blocks"
        );
        assert!(error("student = 0\nteacher = 1").ends_with("counted from 1"));
        assert!(error("student_block = 1").ends_with("count blocks from 0"));
        assert!(error("student_block = 1\nteacher = 2").contains("which counted from 1"));
        let pair = TapPair { student_block: 0, teacher_block: 3 };
        assert_eq!(toml::from_str::<TapPair>(&toml::to_string(&pair).unwrap()).unwrap(), pair);
    }

    #[test]
    fn stored_pairs_of_before_are_converted() {
        let mut recipe = serde_json::json!({
            "loss": { "taps": [{ "student": 3, "teacher": 10 }, { "student_block": 4, "teacher_block": 5 }] }
        });
        upgrade_taps(&mut recipe);
        let pairs: Vec<TapPair> = serde_json::from_value(recipe["loss"]["taps"].clone()).unwrap();
        let want =
            [(2, 9), (4, 5)].map(|(student_block, teacher_block)| TapPair { student_block, teacher_block });
        assert_eq!(pairs, want);
        upgrade_taps(&mut Value::Null);
    }
}
