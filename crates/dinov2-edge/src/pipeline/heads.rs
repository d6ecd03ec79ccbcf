//! The heads of a pipeline, the subset that each sink wants, and commands to running heads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use dinov2_heads::Head;
use serde_json::Value;

/// Maximum number of pending commands; the oldest are dropped.
const MAX_COMMANDS: usize = 64;

/// A head with its name, which is also the prefix of its outputs.
pub struct NamedHead {
    /// Name that sinks and commands use.
    pub name: String,
    /// The head.
    pub head: Box<dyn Head>,
}

impl fmt::Debug for NamedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedHead").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Sends commands to the heads of a running pipeline. Clones share one queue.
///
/// ```
/// use dinov2_edge::pipeline::HeadCommands;
///
/// let commands = HeadCommands::default(); // part of the pipeline's configuration
/// commands.send("pca", "refit".into());
/// ```
#[derive(Clone, Debug, Default)]
pub struct HeadCommands(Arc<Mutex<VecDeque<(String, Value)>>>);

impl HeadCommands {
    /// Sends a command, which the head gets before its next frame. A command that fails becomes a note of the run.
    pub fn send(&self, head: &str, command: Value) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == MAX_COMMANDS {
            waiting.pop_front();
        }
        waiting.push_back((head.into(), command));
    }

    pub(super) fn take(&self) -> VecDeque<(String, Value)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The heads that a sink wants computed. A head that no sink wants is not computed.
#[derive(Clone, Default)]
pub struct Wants {
    heads: Vec<String>,
    asked: Option<Arc<dyn Fn(usize) -> bool + Send + Sync>>,
}

impl Wants {
    /// No heads.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// These heads, for every frame.
    pub fn heads<T: Into<String>>(heads: impl IntoIterator<Item = T>) -> Self {
        Self { heads: heads.into_iter().map(Into::into).collect(), asked: None }
    }

    /// Only for frames of cameras for which `asked` returns true. It is called from another thread, for every frame.
    #[must_use]
    pub fn only_while(self, asked: impl Fn(usize) -> bool + Send + Sync + 'static) -> Self {
        Self { asked: Some(Arc::new(asked)), ..self }
    }

    pub(super) fn include(&self, head: &str, camera: usize) -> bool {
        self.heads.iter().any(|wanted| wanted == head)
            && self.asked.as_ref().is_none_or(|asked| asked(camera))
    }
}

impl fmt::Debug for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wants")
            .field("heads", &self.heads)
            .field("conditional", &self.asked.is_some())
            .finish()
    }
}
