//! Views against torchvision and PIL (`make_data.py`).

use serde::Deserialize;

use super::*;
use crate::image::Image;
use crate::views::Renderer;

#[derive(Deserialize)]
struct Expected {
    crops: Vec<ExpectedCrop>,
    colours: ExpectedColours,
    views: Vec<ExpectedView>,
}

#[derive(Deserialize)]
struct ExpectedCrop {
    size: [usize; 2],
    scale: [f32; 2],
    ratio: [f32; 2],
    units: Vec<f64>,
    crop: [usize; 4],
}

#[derive(Deserialize)]
struct ExpectedColours {
    pixels: Vec<[u8; 3]>,
    cases: Vec<ExpectedColour>,
    grey: Vec<[u8; 3]>,
}

#[derive(Deserialize)]
struct ExpectedColour {
    step: String,
    value: f32,
    pixels: Vec<[u8; 3]>,
}

#[derive(Deserialize)]
struct ExpectedView {
    crop: [usize; 4],
    side: usize,
    flip: bool,
    bytes: Vec<u8>,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/fixtures/views.json")).unwrap()
}

fn crop_box([left_px, top_px, width_px, height_px]: [usize; 4]) -> CropBox {
    CropBox { left_px, top_px, width_px, height_px }
}

fn config() -> ViewConfig {
    ViewConfig {
        sizes_px: vec![28],
        teacher_sizes_px: None,
        scale: [0.32, 1.0],
        ratio: [0.75, 4.0 / 3.0],
        flip: 0.5,
        colour: Some(ColourJitter {
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.2,
            hue: 0.1,
            probability: 0.8,
        }),
        grey: 0.2,
        mixup: 0.5,
    }
}

#[test]
fn crops_are_those_of_torchvision() {
    for case in expected().crops {
        let config = ViewConfig { scale: case.scale, ratio: case.ratio, ..config() };
        let mut units = case.units.into_iter();
        let got = draw_crop(&config, case.size[0], case.size[1], &mut || units.next().unwrap());
        assert_eq!(got, crop_box(case.crop), "{:?} {:?} {:?}", case.size, case.scale, case.ratio);
    }
}

#[test]
fn colours_are_those_of_torchvision() {
    let colours = expected().colours;
    for case in &colours.cases {
        let step = match case.step.as_str() {
            "brightness" => ColourStep::Brightness(case.value),
            "contrast" => ColourStep::Contrast(case.value),
            "saturation" => ColourStep::Saturation(case.value),
            _ => ColourStep::Hue(case.value),
        };
        let mut got = colours.pixels.clone();
        step.apply(&mut got);
        // PyTorch sums in another order, and truncation makes a level of it.
        for (got, want) in got.iter().flatten().zip(case.pixels.iter().flatten()) {
            assert!(got.abs_diff(*want) <= 1, "{step:?}: {got} for {want}");
        }
        let other = got.iter().zip(&case.pixels).filter(|(got, want)| got != want).count();
        assert!(other <= 2, "{step:?}: {other} pixels differ");
    }
    let mut grey = colours.pixels;
    crate::views::colour::to_grey(&mut grey);
    assert_eq!(grey, colours.grey);
}

/// The same formula as in `make_data.py`.
fn image() -> Image {
    let (width_px, height_px) = (61, 47);
    let pixel = |x: usize, y: usize| {
        [(7 * x + 3 * y) % 256, (x * y) % 256, 255 * ((x / 5 + y / 3) % 2)].map(|value| value as u8)
    };
    let pixels = (0..height_px).flat_map(|y| (0..width_px).flat_map(move |x| pixel(x, y))).collect();
    Image { width_px, height_px, pixels }
}

#[test]
fn views_have_the_bytes_of_pil() {
    let mut renderer = Renderer::default();
    for case in expected().views {
        let view = View { crop: crop_box(case.crop), flip: case.flip, colour: Vec::new(), grey: false };
        assert_eq!(renderer.render(&view, &image(), case.side), case.bytes, "{view:?}");
    }
}

#[test]
fn a_view_is_a_function_of_seed_sample_and_draw() {
    let draw = |seed, sample, draw| View::draw(&config(), seed, sample, draw, 500, 375);
    assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
    assert_ne!(draw(1, 2, 3), draw(2, 2, 3));
    assert_ne!(draw(1, 2, 3), draw(1, 3, 3));
    assert_ne!(draw(1, 2, 3), draw(1, 2, 4));
}

#[test]
fn choices_keep_to_their_probabilities() {
    let count = 4_000;
    let views: Vec<_> = (0..count).map(|sample| View::draw(&config(), 5, sample, 0, 300, 200)).collect();
    let share =
        |test: fn(&View) -> bool| views.iter().filter(|view| test(view)).count() as f64 / count as f64;
    // Four standard deviations of a share of 4,000 are 0.032 at most.
    for (got, want) in
        [(share(|v| v.flip), 0.5), (share(|v| v.grey), 0.2), (share(|v| v.colour.len() == 4), 0.8)]
    {
        assert!((got - want).abs() < 0.032, "{got} for {want}");
    }
    assert!(share(|v| v.colour.is_empty()) + share(|v| v.colour.len() == 4) == 1.0);
    for place in 0..4 {
        let hue_at =
            |view: &&View| view.colour.len() == 4 && matches!(view.colour[place], ColourStep::Hue(_));
        let got = views.iter().filter(hue_at).count() as f64 / count as f64;
        assert!((got - 0.2).abs() < 0.032, "hue at {place}: {got}");
    }
    for view in &views {
        let CropBox { left_px, top_px, width_px, height_px } = view.crop;
        assert!(left_px + width_px <= 300 && top_px + height_px <= 200, "{:?}", view.crop);
        let (area, ratio) = ((width_px * height_px) as f64 / 60_000.0, width_px as f64 / height_px as f64);
        assert!((0.31..=1.0).contains(&area) && (0.74..1.35).contains(&ratio), "{:?}", view.crop);
    }
}

#[test]
fn mixtures_have_a_partner_and_a_share() {
    let count = 4_000;
    let mixes: Vec<_> = (0..count).map(|at| Mix::draw(&config(), 5, at, (at % 8) as usize, 8)).collect();
    let drawn = mixes.iter().flatten().count() as f64 / count as f64;
    assert!((drawn - 0.5).abs() < 0.032, "{drawn}");
    let mean =
        mixes.iter().flatten().map(|mix| f64::from(mix.own_share)).sum::<f64>() / (drawn * count as f64);
    assert!((mean - 0.5).abs() < 0.03, "{mean}");
    for (at, mix) in mixes.iter().enumerate() {
        assert!(mix.is_none_or(|mix| mix.partner < 8 && mix.partner != at % 8));
    }
    assert_eq!(Mix::draw(&ViewConfig { mixup: 1.0, ..config() }, 5, 0, 0, 1), None);
}
