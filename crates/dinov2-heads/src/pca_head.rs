//! The head `pca`: colours of the patches by the first three principal components of their features.

use std::time::{Duration, Instant};

use dinov2_core::{HeadOutputs, VitSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::head::config_of;
use crate::{Head, HeadError, HeadInput, HeadKind, PcaView};

/// Time between two fits of [`PcaFit::Follow`].
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);

pub(crate) const KIND: HeadKind =
    HeadKind { name: "pca", summary: "colours by principal components; fit=each, frozen or follow", open };

/// When the basis and the colour range are fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PcaFit {
    /// To every frame: for single images.
    #[default]
    Each,
    /// To the first frame only: colours of a video do not flicker.
    Frozen,
    /// Once a second.
    Follow,
}

/// A command to the head `pca`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PcaCommand {
    /// Fit to the next frame, without changing the mode.
    Refit,
    /// Switch to [`PcaFit::Frozen`].
    Freeze,
    /// Switch to [`PcaFit::Follow`].
    Follow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PcaConfig {
    #[serde(default)]
    fit: PcaFit,
}

struct PcaHead {
    fit: PcaFit,
    refit: bool,
    view: Option<(PcaView, Instant)>,
}

fn open(config: &Value, spec: &VitSpec) -> Result<Box<dyn Head>, HeadError> {
    let PcaConfig { fit } = config_of(KIND.name, config)?;
    if spec.dim < 3 {
        return Err(HeadError::config(
            KIND.name,
            format!("expected features of width 3 or more, got {}", spec.dim),
        ));
    }
    Ok(Box::new(PcaHead { fit, refit: false, view: None }))
}

impl Head for PcaHead {
    /// `pca`: colours `[rows, cols, 3]`. A fit allocates; a frame without a fit does not.
    fn run(&mut self, input: HeadInput<'_>, out: &mut HeadOutputs) -> Result<(), HeadError> {
        let due = match (&self.view, self.fit) {
            (None, _) | (_, PcaFit::Each) => true,
            (Some((_, fitted)), PcaFit::Follow) => fitted.elapsed() >= FOLLOW_PERIOD,
            (Some(_), PcaFit::Frozen) => false,
        };
        let refit = std::mem::take(&mut self.refit);
        let failed = |error| HeadError::features(KIND.name, error);
        let view = match &mut self.view {
            Some((view, _)) if !due && !refit => view,
            view => {
                let fitted = PcaView::fit(input.features.patches(), input.features.dim()).map_err(failed)?;
                &mut view.insert((fitted, Instant::now())).0
            }
        };
        view.rgb_into(input.features.patches(), out.colours(KIND.name, input.features.grid())).map_err(failed)
    }

    fn command(&mut self, command: &Value) -> Result<(), HeadError> {
        let known = serde_json::from_value(command.clone());
        match known.map_err(|_| HeadError::Command {
            expected: "refit, freeze or follow",
            got: command.to_string(),
        })? {
            PcaCommand::Refit => self.refit = true,
            PcaCommand::Freeze => self.fit = PcaFit::Frozen,
            PcaCommand::Follow => self.fit = PcaFit::Follow,
        }
        Ok(())
    }
}
