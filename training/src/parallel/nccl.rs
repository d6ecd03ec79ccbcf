//! Sums of tensors over GPUs by NCCL, without a way through the host's memory.
//!
//! Data shape: f32, any shape, the same in all processes. Built and linked, but not run: that takes two GPUs.

use std::ffi::c_char;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::DriverError;
use candle_core::cuda_backend::cudarc::nccl::result::NcclError;
use candle_core::cuda_backend::cudarc::nccl::{Comm, Id, ReduceOp};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};

use super::{Group, ParallelError};

/// Bytes by which NCCL's processes find each other.
const ID_BYTES: usize = 128;

/// This process's GPU among those of the group.
#[derive(Debug)]
pub(super) struct Ring(Comm);

impl Ring {
    /// Waits until the GPUs of all processes are there; `None` where this process has none.
    pub(super) fn join(
        group: &mut Group,
        device: &Device,
    ) -> std::result::Result<Option<Self>, ParallelError> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let failed = |error: NcclError| ParallelError::Nccl(format!("{:?}", error.0));
        let mut bytes = [0.0f32; ID_BYTES];
        if group.rank == 0 {
            let id = Id::new().map_err(failed)?;
            bytes = id.internal().map(|byte| f32::from(byte as u8));
        }
        group.sum(&mut bytes)?;
        let id = Id::uninit(bytes.map(|byte| byte as u8 as c_char));
        let stream = device.cuda_stream();
        // NCCL takes the GPU that is this thread's.
        let bound = stream.context().bind_to_thread();
        bound.map_err(|error: DriverError| ParallelError::Nccl(error.to_string()))?;
        Comm::from_rank(stream, group.rank, group.world, id).map(|ring| Some(Self(ring))).map_err(failed)
    }

    /// The sums over all processes.
    pub(super) fn sum(&self, numbers: &Tensor) -> Result<Tensor> {
        numbers.contiguous()?.apply_op1_no_bwd(self)
    }
}

impl CustomOp1 for Ring {
    fn name(&self) -> &'static str {
        "sum over processes"
    }

    fn cpu_fwd(&self, _numbers: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("sum over processes: expected a tensor on a GPU, got one on the CPU")
    }

    fn cuda_fwd(&self, numbers: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("sum over processes: expected a contiguous tensor, got strides {:?}", layout.stride());
        };
        let device = numbers.device().clone();
        let numbers = numbers.as_cuda_slice::<f32>()?.slice(start..end);
        let mut sums = device.alloc_zeros::<f32>(end - start)?;
        if let Err(error) = self.0.all_reduce(&numbers, &mut sums, &ReduceOp::Sum) {
            bail!("nccl: {:?}", error.0);
        }
        Ok((CudaStorage::wrap_cuda_slice(sums, device), layout.shape().clone()))
    }
}
