//! Fitting: sizes by table, pixels against PIL.

mod common;

use common::{difference, image};
use dinov2_core::ImageView;
use dinov2_io::{Fit, FitError, Size};

#[test]
fn resized_as_pil_does() {
    let photo = image("photo.png");
    for (width_px, height_px) in [(98, 70), (70, 126), (196, 154), (14, 14), (210, 14)] {
        let expected = image(&format!("photo_{width_px}x{height_px}.png"));
        let mut fit = Fit::new(Size::Exact { width_px, height_px }, 14).unwrap();
        let (most, _) = difference(fit.fit(photo.view()).unwrap(), expected.view());
        assert_eq!(most, 0, "{width_px}x{height_px}");
    }
}

#[test]
fn one_axis_at_a_time_as_pil_does() {
    let photo = image("photo.png");
    assert_eq!((photo.width_px, photo.height_px), (151, 113));
    for (width_px, height_px) in [(151, 70), (42, 113)] {
        let expected = image(&format!("photo_{width_px}x{height_px}.png"));
        let mut fit = Fit::new(Size::Exact { width_px, height_px }, 1).unwrap();
        let (most, _) = difference(fit.fit(photo.view()).unwrap(), expected.view());
        assert_eq!(most, 0, "{width_px}x{height_px}");
    }
}

#[test]
fn sizes_are_parsed() {
    assert_eq!("224".parse(), Ok(Size::Short(224)));
    assert_eq!("518x392".parse(), Ok(Size::Exact { width_px: 518, height_px: 392 }));
    assert_eq!("native".parse(), Ok(Size::Native));
    for wrong in [
        "",
        "0",
        "x",
        "224x",
        "x224",
        "-14",
        "+14",
        "1.5",
        "14x0",
        "14x14x14",
        "32769",
        "99999999999999999999",
    ] {
        assert_eq!(wrong.parse::<Size>(), Err(FitError::Syntax(wrong.to_string())));
    }
    for word in ["224", "518x392", "native"] {
        assert_eq!(word.parse::<Size>().unwrap().to_string(), word);
    }
}

#[test]
fn targets() {
    let exact = Size::Exact { width_px: 518, height_px: 392 };
    for (size, from, to) in [
        // 640 * 224 / 480 = 298.67, nearest 294.
        (Size::Short(224), (640, 480), (294, 224)),
        (Size::Short(224), (480, 640), (224, 294)),
        // 301 * 224 / 224: halfway between 294 and 308 goes up.
        (Size::Short(224), (301, 224), (308, 224)),
        (Size::Short(225), (100, 100), (224, 224)),
        (Size::Short(3), (10, 10), (14, 14)),
        (Size::Short(518), (1920, 1080), (924, 518)),
        (exact, (7, 5), (518, 392)),
        (Size::Native, (640, 480), (630, 476)),
        (Size::Native, (14, 27), (14, 14)),
    ] {
        assert_eq!(size.target(from.0, from.1, 14), Ok(to), "{size} of {from:?}");
    }
    let small = FitError::TooSmall { width_px: 13, height_px: 100, patch_size: 14 };
    assert_eq!(Size::Native.target(13, 100, 14), Err(small));
    let off = Fit::new(Size::Exact { width_px: 520, height_px: 392 }, 14).unwrap_err();
    assert_eq!(
        off.to_string(),
        "size: expected multiples of the patch size 14, got 520x392; nearest are 518x392 and 532x392"
    );
    assert!(Fit::new(Size::Exact { width_px: 7, height_px: 7 }, 14).is_err());
    // A strip of 32768 x 1 whose short side would become 224.
    assert!(matches!(Size::Short(224).target(32_768, 1, 14), Err(FitError::TooLarge { .. })));
    assert!(matches!(Size::Short(32_768).target(100, 100, 14), Err(FitError::TooLarge { .. })));
}

#[test]
fn nothing_is_copied_without_need() {
    let pixels: Vec<u8> = (0..28 * 28 * 3).map(|value| value as u8).collect();
    let image = ImageView::new(&pixels, 28, 28).unwrap();
    for size in [Size::Native, Size::Short(28), Size::Exact { width_px: 28, height_px: 28 }] {
        let mut fit = Fit::new(size, 14).unwrap();
        assert!(std::ptr::eq(fit.fit(image).unwrap().pixels(), pixels.as_slice()), "{size}");
    }
}

#[test]
fn fitting_into_a_buffer_gives_the_same_pixels() {
    let photo = image("photo.png");
    let mut fitted = vec![1; 5];
    let whole = Size::Exact { width_px: photo.width_px, height_px: photo.height_px };
    for (size, patch_size) in [(Size::Native, 14), (Size::Native, 1), (Size::Short(98), 14), (whole, 1)] {
        let mut fit = Fit::new(size, patch_size).unwrap();
        let (width_px, height_px) = fit.fit_into(photo.view(), &mut fitted).unwrap();
        let expected = fit.fit(photo.view()).unwrap();
        assert_eq!((width_px, height_px), (expected.width_px(), expected.height_px()), "{size}");
        assert!(fitted == expected.pixels(), "{size}");
        let place = fitted.as_ptr();
        fit.fit_into(photo.view(), &mut fitted).unwrap();
        assert_eq!(fitted.as_ptr(), place, "the buffer is kept");
    }
    let mut fit = Fit::new(Size::Native, 14).unwrap();
    assert!(fit.fit_into(ImageView::new(&[0; 3], 1, 1).unwrap(), &mut fitted).is_err());
}

#[test]
fn native_takes_the_centre() {
    let (width, height) = (31, 19);
    let pixels: Vec<u8> =
        (0..width * height).flat_map(|index| [(index % width) as u8, (index / width) as u8, 7]).collect();
    let image = ImageView::new(&pixels, width, height).unwrap();
    let mut fit = Fit::new(Size::Native, 14).unwrap();
    let fitted = fit.fit(image).unwrap();
    assert_eq!((fitted.width_px(), fitted.height_px()), (28, 14));
    // 3 spare columns: 1 left, 2 right; 5 spare rows: 2 above, 3 below.
    assert_eq!(fitted.pixels()[..3], [1, 2, 7]);
    assert_eq!(fitted.pixels()[(13 * 28 + 27) * 3..], [28, 15, 7]);
    // Only rows to cut.
    let tall = ImageView::new(&pixels[..28 * 17 * 3], 28, 17).unwrap();
    assert_eq!(fit.fit(tall).unwrap().pixels(), &pixels[28 * 3..28 * 15 * 3]);
}

#[test]
fn frames_of_changing_size() {
    let photo = image("photo.png");
    let mut fit = Fit::new(Size::Exact { width_px: 98, height_px: 70 }, 14).unwrap();
    let expected = image("photo_98x70.png");
    for _ in 0..2 {
        let (most, _) = difference(fit.fit(photo.view()).unwrap(), expected.view());
        assert_eq!(most, 0);
        let other = image("small.png");
        assert_eq!(fit.fit(other.view()).unwrap().pixels().len(), 98 * 70 * 3);
        let tiny = ImageView::new(&[9; 3], 1, 1).unwrap();
        assert!(fit.fit(tiny).unwrap().pixels().iter().all(|value| *value == 9));
    }
    assert!(fit.fit(ImageView::new(&[], 0, 0).unwrap()).is_err());
}

#[test]
fn the_crop_is_the_part_that_was_fitted() {
    let photo = image("photo.png");
    let mut fit = Fit::new(Size::Native, 14).unwrap();
    let crop = fit.crop(photo.width_px, photo.height_px).unwrap();
    let fitted = fit.fit(photo.view()).unwrap();
    assert_eq!((crop.width_px, crop.height_px), (fitted.width_px(), fitted.height_px()));
    assert!(crop.left_px > 0, "the fixture has no margin");
    for (row, pixels) in fitted.pixels().chunks_exact(3 * crop.width_px).enumerate() {
        let start = ((crop.top_px + row) * photo.width_px + crop.left_px) * 3;
        assert_eq!(pixels, &photo.pixels[start..start + pixels.len()], "row {row}");
    }
    let whole = Fit::new(Size::Short(98), 14).unwrap().crop(photo.width_px, photo.height_px).unwrap();
    let (width_px, height_px) = (photo.width_px, photo.height_px);
    assert_eq!(whole, dinov2_io::Crop { left_px: 0, top_px: 0, width_px, height_px });
}

/// A white dot at the centre of a patch, as the geometry has it, is brightest in that patch of what the engine sees.
#[test]
fn patches_lie_where_their_pixels_come_from() {
    let sizes =
        [Size::Short(42), Size::Short(112), Size::Exact { width_px: 70, height_px: 42 }, Size::Native];
    for (size, (width, height)) in
        sizes.iter().flat_map(|size| [(151, 113), (64, 97)].map(|image| (*size, image)))
    {
        let mut fit = Fit::new(size, 14).unwrap();
        let geometry = fit.geometry(width, height).unwrap();
        for index in 0..geometry.grid().len() {
            let patch = geometry.grid().patch(index);
            let centre = geometry.centre(patch.row, patch.col);
            let mut pixels = vec![0; width * height * 3];
            pixels[(centre.y_px as usize * width + centre.x_px as usize) * 3..][..3].fill(255);
            let fitted = fit.fit(ImageView::new(&pixels, width, height).unwrap()).unwrap();
            let green = fitted.pixels().chunks_exact(3).map(|pixel| pixel[1]);
            let (brightest, _) = green.enumerate().max_by_key(|(_, value)| *value).unwrap();
            let at = (brightest / fitted.width_px() / 14, brightest % fitted.width_px() / 14);
            assert_eq!(at, (patch.row, patch.col), "{size} of {width}x{height}");
        }
    }
}
