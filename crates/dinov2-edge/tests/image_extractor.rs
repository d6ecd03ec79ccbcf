//! The facade's extractor against what its parts do one by one.

use std::path::{Path, PathBuf};

use dinov2_edge::io::{Fit, FitError, Frame, Size, read_still};
use dinov2_edge::weights::Model;
use dinov2_edge::{
    CpuConfig, CpuEngine, Extractor, Features, ImageExtractError, ImageExtractor, ImageView, PatchIndex, Taps,
};

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn engine(name: &str) -> CpuEngine {
    let model = Model::open(in_repository("models").join(name)).unwrap();
    CpuEngine::new(&model, CpuConfig::default()).unwrap()
}

#[test]
fn images_of_any_size_come_to_the_grid_of_the_model() {
    let mut frame = Frame::new();
    read_still(&in_repository("examples/media/cat.jpg"), &mut frame).unwrap();
    for (model, patch_size) in [("vits14-focus-int8.safetensors", 14), ("vits21-focus-int8.safetensors", 21)]
    {
        let mut extractor = ImageExtractor::new(engine(model), Size::Short(84)).unwrap();
        let mut by_hand = Fit::new(Size::Short(84), patch_size).unwrap();
        let (mut got, mut expected) = (Features::new(), Features::new());
        let small = ImageView::new(&frame.pixels[..90 * 70 * 3], 90, 70).unwrap();
        for image in [frame.view(), small, frame.view()] {
            let geometry = extractor.extract(image, &Taps::none(), &mut got).unwrap();
            let mut plain = engine(model);
            plain.extract(by_hand.fit(image).unwrap(), &Taps::none(), &mut expected).unwrap();
            assert_eq!(got.tokens(), expected.tokens(), "{model}");
            assert_eq!((geometry.grid(), geometry.crop().width_px), (got.grid(), image.width_px()));
            let last = PatchIndex { row: got.grid().rows - 1, col: got.grid().cols - 1 };
            let corner = (image.width_px() as f64 - 0.5, image.height_px() as f64 - 0.5);
            assert_eq!(geometry.patch_at(corner.0, corner.1), Some(last));
            assert_eq!(got.patch(last.row, last.col), &got.patches()[got.patches().len() - 384..]);
        }
    }
}

#[test]
fn what_cannot_be_fitted_is_refused_with_the_patch_size_of_the_model() {
    let exact = ImageExtractor::new(
        engine("vits21-focus-int8.safetensors"),
        Size::Exact { width_px: 224, height_px: 224 },
    );
    let refused = exact.err().unwrap().to_string();
    assert!(
        refused.contains("21") && refused.contains("210x210") && refused.contains("231x231"),
        "{refused}"
    );
    let mut extractor = ImageExtractor::new(engine("vits14-focus-int8.safetensors"), Size::Native).unwrap();
    let (pixels, mut features) = ([0; 13 * 40 * 3], Features::new());
    let narrow = ImageView::new(&pixels, 13, 40).unwrap();
    let refused = extractor.extract(narrow, &Taps::none(), &mut features);
    assert!(matches!(refused, Err(ImageExtractError::Fit(FitError::TooSmall { .. }))), "{refused:?}");
    let empty = ImageView::new(&[], 0, 0).unwrap();
    assert!(extractor.extract(empty, &Taps::none(), &mut features).is_err());
}

#[test]
fn a_file_is_decoded_and_extracted_like_its_pixels() {
    let mut extractor =
        ImageExtractor::new(engine("vits14-focus-int8.safetensors"), Size::Short(84)).unwrap();
    let photo = in_repository("examples/media/cat.jpg");
    let (mut frame, mut got, mut expected) = (Frame::new(), Features::new(), Features::new());
    read_still(&photo, &mut frame).unwrap();
    let of_pixels = extractor.extract(frame.view(), &Taps::none(), &mut expected).unwrap();
    let of_file = extractor.extract_file(&photo, &Taps::none(), &mut got).unwrap();
    assert_eq!((of_file, got.tokens()), (of_pixels, expected.tokens()));

    for refused in ["examples/media/none.jpg", "examples/media/README.md"] {
        let outcome = extractor.extract_file(in_repository(refused), &Taps::none(), &mut got);
        assert!(matches!(outcome, Err(ImageExtractError::Read(_))), "{refused}: {outcome:?}");
    }
}
