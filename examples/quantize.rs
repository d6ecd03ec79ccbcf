//! A checkpoint to an f32 model file, and that to an int8 model file.
//!
//!     cargo run --release -p dinov2-edge --example quantize [CHECKPOINT OUTPUT.safetensors]
//!
//! Without arguments it takes a tiny random model of the tests. A real model should have some hundred photographs of the place
//! where it will work, instead of the frames of one clip.

use std::path::Path;

use dinov2_edge::io::{Fit, Frame, Size, SourceOptions, open};
use dinov2_edge::quantize::{ImageSet, Picture, QuantizeOptions, Target, quantize};
use dinov2_edge::weights::{ConvertOptions, Model, Storage, convert};

fn main() -> anyhow::Result<()> {
    let folder = std::env::temp_dir();
    let mut arguments = std::env::args().skip(1);
    let checkpoint = arguments.next().unwrap_or_else(|| "tests/fixtures/golden/hf_mlp".into());
    let output = arguments.next().map_or_else(|| folder.join("int8.safetensors"), Into::into);

    let exact = folder.join("f32.safetensors");
    convert(Path::new(&checkpoint), &exact, &ConvertOptions::new(Storage::F32), &mut |_| {})?;
    let model = Model::open(&exact)?;

    // Of every three frames, the third is held out: the fidelity in the file is measured on images that nothing was fitted to.
    let mut images = ImageSet { size_px: 224, calibration: Vec::new(), held_out: Vec::new() };
    let (mut fit, mut frame) = (Fit::new(Size::Short(224), model.spec().patch_size)?, Frame::new());
    let mut source = open(&["examples/media/cat.mjpeg"], &SourceOptions::default())?;
    while source.next_frame(&mut frame)? {
        let held_out = frame.index % 3 == 2;
        let set = if held_out { &mut images.held_out } else { &mut images.calibration };
        set.push(Picture::new(fit.fit(frame.view())?));
    }

    let options =
        QuantizeOptions { target: Target::Int8, weight_limit: 64, threads: dinov2_edge::default_threads() };
    let report = quantize(&model, &[images], options, &output, &mut |_| {})?;
    for fidelity in &report.quantization.fidelity {
        println!("at {} pixels: median patch cosine to f32 {:.5}", fidelity.size_px, fidelity.median);
    }
    println!("{} matrices to int8 in {}", report.matrices.len(), output.display());
    Ok(())
}
