//! Every shader, in every variant, without a device: it is valid WGSL for the devices that shall run it and has the entry
//! point and the bindings that the Rust side says.

use std::collections::BTreeSet;
use std::path::Path;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess};

use super::product::Output;
use super::{
    Access, FRAME, Real, Shader, attention, cls_attention, columns, gemm_cooperative, gemm_float, gemm_i8,
    layer_norm, layer_norm_quantized, patch_rows, peak_cooperative, peak_float, peak_i8, quantize,
};
use crate::frame::Frame;
use crate::matrix::Form;

/// What WebGPU has without any optional feature.
const SMALLEST: Capabilities = Capabilities::empty();
const COOPERATIVE: Capabilities =
    Capabilities::COOPERATIVE_MATRIX.union(Capabilities::SHADER_FLOAT16).union(Capabilities::SUBGROUP);

fn needed(real: Real) -> Capabilities {
    match real {
        Real::F32 => SMALLEST,
        Real::F16 => Capabilities::SHADER_FLOAT16,
    }
}

/// Every variant of every shader, and what a device must have to run it.
fn shaders() -> Vec<(Shader, Capabilities)> {
    let alone = [patch_rows::shader(), layer_norm_quantized::shader(), peak_i8::shader()];
    let mut all: Vec<_> = alone.map(|shader| (shader, SMALLEST)).into();
    for real in [Real::F32, Real::F16] {
        let of_real = [
            layer_norm::shader(real),
            quantize::shader(real),
            attention::shader(real),
            cls_attention::shader(real),
            columns::shader(real),
            peak_float::shader(real),
        ];
        all.extend(of_real.map(|shader| (shader, needed(real))));
        all.extend(products(real).into_iter().map(|shader| (shader, needed(real))));
    }
    for side in [8, 16] {
        all.extend(
            [Output::Store, Output::Add].map(|output| (gemm_cooperative::shader(side, output), COOPERATIVE)),
        );
        all.push((peak_cooperative::shader(side), COOPERATIVE));
    }
    all
}

fn products(real: Real) -> Vec<Shader> {
    let of_output = |output| {
        [
            gemm_float::shader(real, Form::Float(real), output),
            gemm_float::shader(real, Form::Int8AsFloat, output),
            gemm_i8::shader(real, output),
        ]
    };
    [Output::Store, Output::Add].into_iter().flat_map(of_output).collect()
}

fn parsed(name: &str, source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(source)))
}

/// Binding and access of every buffer.
fn buffers(module: &Module) -> BTreeSet<(u32, Access)> {
    let bound = module.global_variables.iter().filter_map(|(_, variable)| {
        let binding = variable.binding?;
        assert_eq!(binding.group, 0, "there is one group");
        let access = match variable.space {
            AddressSpace::Uniform => Access::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::ReadWrite,
            AddressSpace::Storage { .. } => Access::Read,
            other => panic!("binding {}: {other:?}", binding.binding),
        };
        Some((binding.binding, access))
    });
    bound.collect()
}

#[test]
fn shaders_are_valid_where_they_shall_run() {
    for (shader, capabilities) in shaders() {
        let (name, source) = (shader.name, shader.source());
        let module = parsed(name, &source);
        let validated = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
        validated.unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(&source)));
    }
}

#[test]
fn shaders_have_the_entry_point_and_the_bindings_of_the_rust_side() {
    for (shader, _) in shaders() {
        let module = parsed(shader.name, &shader.source());
        let entries: Vec<_> = module.entry_points.iter().map(|entry| (&*entry.name, entry.stage)).collect();
        assert_eq!(entries, [(shader.name, ShaderStage::Compute)]);
        let listed: BTreeSet<_> = shader.bindings.iter().copied().collect();
        assert_eq!(listed.len(), shader.bindings.len(), "{}: a binding twice", shader.name);
        assert_eq!(buffers(&module), listed, "{}", shader.name);
    }
}

#[test]
fn no_shader_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    let paths = folder.read_dir().expect("the crate's sources").map(|entry| entry.expect("a file").path());
    let wgsl = paths.filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"));
    let files: BTreeSet<String> =
        wgsl.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    let listed: BTreeSet<String> = shaders().iter().map(|(shader, _)| shader.name.to_string()).collect();
    assert_eq!(files, listed);
}

#[test]
fn the_frame_is_as_large_here_as_there() {
    let module = parsed("frame", FRAME);
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("a type that has a layout");
    let (_, frame) = module.global_variables.iter().next().expect("the frame");
    assert_eq!(layouter[frame.ty].size as usize, size_of::<Frame>());
}
