//! Replaces `nccl.rs` without the feature: all sums go through process 0.

use candle_core::{Device, Result, Tensor};

use super::{Group, ParallelError};

/// Never exists.
#[derive(Debug)]
pub(super) enum Ring {}

impl Ring {
    pub(super) fn join(_: &mut Group, _: &Device) -> std::result::Result<Option<Self>, ParallelError> {
        Ok(None)
    }

    pub(super) fn sum(&self, _: &Tensor) -> Result<Tensor> {
        match *self {}
    }
}
