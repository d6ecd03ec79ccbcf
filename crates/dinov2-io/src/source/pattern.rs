//! The test pattern `test:`: three moving shapes before a textured background. Its pixels are the same on every machine.

use crate::{Frame, SourceError};

/// Size of `test:` where none is given.
const DEFAULT_SIZE_PX: (usize, usize) = (640, 480);
/// Frames of `test:` where no number is given: 10 s.
const DEFAULT_FRAMES: usize = 300;
/// Nominal frame time: 30 frames per second.
const FRAME_NS: u64 = 1_000_000_000 / 30;

/// The moving pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    width_px: usize,
    height_px: usize,
    /// `None` for an endless pattern.
    frames: Option<usize>,
    next: usize,
    /// `[height, width, 3]`
    background: Vec<u8>,
}

impl Pattern {
    /// Parses the text after `test:`, `[WIDTHxHEIGHT][@FRAMES]`. 0 frames means endless.
    pub(crate) fn parse(words: &str) -> Result<Self, SourceError> {
        let wrong = || SourceError::Input {
            expected: "test:, test:WIDTHxHEIGHT or test:WIDTHxHEIGHT@FRAMES".into(),
            got: format!("{:?}", format!("test:{words}")),
        };
        let (size, frames) = match words.split_once('@') {
            Some((size, frames)) => (size, frames.parse().map_err(|_| wrong())?),
            None => (words, DEFAULT_FRAMES),
        };
        let (width_px, height_px) = match size {
            "" => DEFAULT_SIZE_PX,
            size => super::parse_size(size).ok_or_else(wrong)?,
        };
        let frames = (frames > 0).then_some(frames);
        Ok(Self { width_px, height_px, frames, next: 0, background: Vec::new() })
    }

    pub(crate) fn frames(&self) -> Option<usize> {
        self.frames
    }

    /// Makes `index` the next frame.
    pub(crate) fn seek(&mut self, index: usize) {
        self.next = index;
    }

    pub(crate) fn read_into(&mut self, frame: &mut Frame) -> bool {
        if self.frames.is_some_and(|frames| self.next >= frames) {
            return false;
        }
        if self.background.is_empty() {
            self.background = background(self.width_px, self.height_px);
        }
        frame.resize(self.width_px, self.height_px);
        frame.pixels.copy_from_slice(&self.background);
        frame.capture_ns = Some(self.next as u64 * FRAME_NS);
        for shape in shapes(self.next) {
            draw(shape, self.width_px, self.height_px, &mut frame.pixels);
        }
        self.next += 1;
        true
    }
}

#[derive(Clone, Copy)]
enum Outline {
    Disc,
    Ring,
    Box,
}

/// A shape in units of the short side, the origin at the centre of the image.
#[derive(Clone, Copy)]
struct Shape {
    outline: Outline,
    x: f32,
    y: f32,
    radius: f32,
    color: [f32; 3],
}

fn shapes(index: usize) -> [Shape; 3] {
    let turns = |period: usize| (index % period) as f32 / period as f32;
    [
        Shape {
            outline: Outline::Box,
            x: 0.42 * sine(turns(240)),
            y: 0.24 * sine(turns(180) + 0.25),
            radius: 0.15,
            color: [60.0, 110.0, 225.0],
        },
        Shape {
            outline: Outline::Ring,
            x: 0.36 * sine(turns(200) + 0.5),
            y: 0.2 * sine(turns(140)),
            radius: 0.19,
            color: [245.0, 205.0, 70.0],
        },
        Shape {
            outline: Outline::Disc,
            x: 0.48 * sine(turns(150) + 0.25),
            y: 0.28 * sine(turns(210) + 0.6),
            radius: 0.12,
            color: [225.0, 75.0, 60.0],
        },
    ]
}

/// Sine of `turns` full turns by a parabola and its square (error below 0.2 %), since the one of the C library differs
/// from machine to machine.
fn sine(turns: f32) -> f32 {
    let phase = (turns - turns.floor()) * 2.0 - 1.0;
    let parabola = -4.0 * phase * (1.0 - phase.abs());
    0.225 * (parabola * parabola.abs() - parabola) + parabola
}

/// Paints one shape with a soft edge and light from the upper left.
fn draw(shape: Shape, width_px: usize, height_px: usize, rgb: &mut [u8]) {
    let unit = width_px.min(height_px) as f32;
    let center = (width_px as f32 / 2.0 + shape.x * unit, height_px as f32 / 2.0 + shape.y * unit);
    let radius = shape.radius * unit;
    let span = |middle: f32, side: usize| {
        let first = (middle - radius - 1.0).max(0.0) as usize;
        first.min(side)..((middle + radius + 2.0).max(0.0) as usize).min(side)
    };
    for row in span(center.1, height_px) {
        for column in span(center.0, width_px) {
            let (x, y) = (column as f32 + 0.5 - center.0, row as f32 + 0.5 - center.1);
            let distance = (x * x + y * y).sqrt();
            let inside = match shape.outline {
                Outline::Disc => radius - distance,
                Outline::Ring => radius * 0.25 - (distance - radius * 0.75).abs(),
                Outline::Box => radius * 0.85 - x.abs().max(y.abs()),
            };
            let cover = (inside + 0.5).clamp(0.0, 1.0);
            if cover == 0.0 {
                continue;
            }
            let light = 1.0 - 0.35 * (x + y) / (2.0 * radius);
            let pixel = &mut rgb[(row * width_px + column) * 3..][..3];
            for (value, color) in pixel.iter_mut().zip(shape.color) {
                *value = (f32::from(*value) * (1.0 - cover) + (color * light).min(255.0) * cover) as u8;
            }
        }
    }
}

/// Green hills of smooth noise under a blue sky of larger noise.
fn background(width_px: usize, height_px: usize) -> Vec<u8> {
    let unit = width_px.min(height_px) as f32;
    let mut rgb = Vec::with_capacity(width_px * height_px * 3);
    for row in 0..height_px {
        for column in 0..width_px {
            let (x, y) = (column as f32 / unit, row as f32 / unit);
            let horizon = 0.5 + 0.1 * sine(x * 0.7 + 0.1) + 0.03 * sine(x * 2.3);
            let color = if y * unit / (height_px as f32) < horizon {
                let cloud = noise(x * 4.0, y * 8.0, 1) * 0.6 + noise(x * 9.0, y * 18.0, 2) * 0.4;
                [120.0 + 90.0 * cloud, 165.0 + 60.0 * cloud, 215.0 + 30.0 * cloud]
            } else {
                let grass = noise(x * 40.0, y * 40.0, 3) * 0.5 + noise(x * 7.0, y * 7.0, 4) * 0.5;
                [50.0 + 70.0 * grass, 85.0 + 90.0 * grass, 35.0 + 40.0 * grass]
            };
            rgb.extend(color.map(|value| value as u8));
        }
    }
    rgb
}

/// Value noise, 0..=1: random values on the integer points, smoothed in between.
fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let corner = |dx: u32, dy: u32| hash((x as u32).wrapping_add(dx), (y as u32).wrapping_add(dy), seed);
    let smooth = |value: f32| {
        let part = value - value.floor();
        part * part * (3.0 - 2.0 * part)
    };
    let (across, down) = (smooth(x), smooth(y));
    let mix = |from: f32, to: f32, part: f32| from + (to - from) * part;
    mix(mix(corner(0, 0), corner(1, 0), across), mix(corner(0, 1), corner(1, 1), across), down)
}

/// 0..1 from two coordinates, by multiply-xor mixing.
fn hash(x: u32, y: u32, seed: u32) -> f32 {
    let mut bits = x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77) ^ seed.wrapping_mul(0xC2B2_AE3D);
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x2C1B_3C6D);
    bits = (bits ^ (bits >> 12)).wrapping_mul(0x297A_2D39);
    (bits >> 8) as f32 / (1 << 24) as f32
}
