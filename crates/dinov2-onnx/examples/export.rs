//! Exports a model file: `export MODEL.safetensors OUT.onnx [WIDTHxHEIGHT|dynamic] [f32|f16] [TAPS]`.

use std::path::Path;

use dinov2_core::{PatchGrid, Taps};
use dinov2_onnx::{ExportConfig, Precision, Resolution, export};
use dinov2_weights::Model;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, options @ ..] = words.as_slice() else {
        return Err("usage: export MODEL.safetensors OUT.onnx [WIDTHxHEIGHT|dynamic] [f32|f16] [TAPS]".into());
    };
    let model = Model::open(input)?;
    let resolution = match options.first().map_or("224x224", String::as_str) {
        "dynamic" => Resolution::Dynamic,
        size => {
            let (width, height) = size.split_once('x').ok_or("size: expected WIDTHxHEIGHT")?;
            Resolution::Static(PatchGrid::of_image(width.parse()?, height.parse()?, model.spec().patch_size)?)
        }
    };
    let mut config = ExportConfig::new(resolution);
    if options.get(1).is_some_and(|precision| precision == "f16") {
        config.precision = Precision::F16;
    }
    config.taps = Taps::parse(options.get(2).map_or("", String::as_str), model.spec().depth)?;
    let exported = export(&model, &config, Path::new(output))?;
    println!("{}", exported.model.display());
    Ok(())
}
