//! Compiled shaders, in memory and on disk.

use std::collections::HashMap;
use std::sync::Arc;

use wgpu::{
    AdapterInfo, BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingType, BufferBindingType, ComputePipeline, ComputePipelineDescriptor, Device,
    Features, PipelineCache, PipelineCacheDescriptor, PipelineCompilationOptions, PipelineLayoutDescriptor,
    ShaderModule, ShaderModuleDescriptor, ShaderRuntimeChecks, ShaderSource, ShaderStages,
};

use crate::disk::Folder;
use crate::kernels::{Access, Constant, Shader};
use crate::step::Slice;

/// A compiled shader with the layout of its bindings.
pub(crate) struct Pipeline {
    pub(crate) compiled: ComputePipeline,
    layout: BindGroupLayout,
    bindings: &'static [(u32, Access)],
}

impl Pipeline {
    /// Binds buffers, in the order of the shader's bindings.
    pub(crate) fn bind(&self, device: &Device, buffers: &[Slice<'_>]) -> BindGroup {
        assert_eq!(buffers.len(), self.bindings.len(), "a buffer for every binding");
        let pairs = self.bindings.iter().zip(buffers);
        let entries: Vec<_> = pairs
            .map(|(&(binding, _), buffer)| BindGroupEntry { binding, resource: buffer.resource() })
            .collect();
        device.create_bind_group(&BindGroupDescriptor {
            label: None,
            layout: &self.layout,
            entries: &entries,
        })
    }
}

type Key = (Shader, Vec<(&'static str, u64)>);

pub(crate) struct Pipelines {
    modules: HashMap<Shader, ShaderModule>,
    compiled: HashMap<Key, Arc<Pipeline>>,
    cache: Option<Cache>,
    checks: ShaderRuntimeChecks,
}

struct Cache {
    handle: PipelineCache,
    file: String,
    /// Pipelines that were not there when the file was last written.
    unsaved: bool,
}

impl Pipelines {
    pub(crate) fn new(device: &Device, info: &AdapterInfo, folder: Option<&Folder>, checked: bool) -> Self {
        let file = wgpu::util::pipeline_cache_key(info).zip(folder);
        let cache =
            file.filter(|_| device.features().contains(Features::PIPELINE_CACHE)).map(|(file, folder)| {
                let data = folder.read(&file);
                let descriptor =
                    PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
                #[expect(unsafe_code, reason = "the driver trusts what it wrote itself")]
                // SAFETY: only `save` writes this file, from `get_data`; wgpu and the driver check its header and fall back
                // to an empty cache.
                let handle = unsafe { device.create_pipeline_cache(&descriptor) };
                Cache { handle, file, unsaved: false }
            });
        let checks = if checked { ShaderRuntimeChecks::checked() } else { ShaderRuntimeChecks::unchecked() };
        Self { modules: HashMap::new(), compiled: HashMap::new(), cache, checks }
    }

    pub(crate) fn get(&mut self, device: &Device, shader: &Shader, constants: &[Constant]) -> Arc<Pipeline> {
        let bits = constants.iter().map(|(name, value)| (*name, value.to_bits())).collect();
        let key = (shader.clone(), bits);
        if let Some(known) = self.compiled.get(&key) {
            return Arc::clone(known);
        }
        let module =
            self.modules.entry(shader.clone()).or_insert_with(|| module(device, shader, self.checks));
        let cache = self.cache.as_mut().map(|cache| {
            cache.unsaved = true;
            &cache.handle
        });
        let pipeline = Arc::new(compile(device, shader, module, constants, cache));
        self.compiled.insert(key, Arc::clone(&pipeline));
        pipeline
    }

    /// Writes what the driver compiled since the last time. It is a cache, so failures are ignored.
    pub(crate) fn save(&mut self, folder: &Folder) {
        let Some(cache) = self.cache.as_mut().filter(|cache| cache.unsaved) else { return };
        if let Some(data) = cache.handle.get_data() {
            cache.unsaved = folder.write(&cache.file, &data).is_err();
        }
    }
}

fn module(device: &Device, shader: &Shader, checks: ShaderRuntimeChecks) -> ShaderModule {
    let source = ShaderSource::Wgsl(shader.source().into());
    let descriptor = ShaderModuleDescriptor { label: Some(shader.name), source };
    #[expect(unsafe_code, reason = "checks of every index cost a multiple of a matrix product's time")]
    // SAFETY: our own shaders. Every loop ends, no divisor is 0, and every index lies within the buffers and tiles that
    // the kernels' Rust sides size; tests compare them with what checked shaders
    // compute (`GpuConfig::checked`).
    unsafe {
        device.create_shader_module_trusted(descriptor, checks)
    }
}

fn compile(
    device: &Device,
    shader: &Shader,
    module: &ShaderModule,
    constants: &[Constant],
    cache: Option<&PipelineCache>,
) -> Pipeline {
    let entries: Vec<_> =
        shader.bindings.iter().map(|&(binding, access)| layout_entry(binding, access)).collect();
    let layout = device
        .create_bind_group_layout(&BindGroupLayoutDescriptor { label: Some(shader.name), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&PipelineLayoutDescriptor {
        label: Some(shader.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let compiled = device.create_compute_pipeline(&ComputePipelineDescriptor {
        label: Some(shader.name),
        layout: Some(&pipeline_layout),
        module,
        entry_point: Some(shader.name),
        // Every kernel writes its workgroup memory before it reads it.
        compilation_options: PipelineCompilationOptions {
            constants,
            zero_initialize_workgroup_memory: false,
        },
        cache,
    });
    Pipeline { compiled, layout, bindings: shader.bindings }
}

fn layout_entry(binding: u32, access: Access) -> BindGroupLayoutEntry {
    let ty = match access {
        Access::Uniform => BufferBindingType::Uniform,
        Access::Read => BufferBindingType::Storage { read_only: true },
        Access::ReadWrite => BufferBindingType::Storage { read_only: false },
    };
    BindGroupLayoutEntry {
        binding,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
