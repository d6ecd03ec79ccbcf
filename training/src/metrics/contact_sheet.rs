//! Contact sheets: images beside the principal components of teacher and student.

use dinov2_core::{ImageView, PatchGrid};
use dinov2_heads::{PcaError, PcaView};
use dinov2_io::{Fit, FitError, Size};

/// Most rows of a sheet, so that viewers can open it.
pub const MAX_SHEET_ROWS: usize = 64;
/// Side of a cell; the longer side of an image is resized to it.
const CELL_PX: usize = 224;
/// Between pictures.
const GAP_PX: usize = 4;
/// Image, teacher, student.
const COLUMNS: usize = 3;
const BACKGROUND: u8 = 32;
const CHANNELS: usize = 3;

/// The patch features of one image.
#[derive(Clone, Copy, Debug)]
pub struct PatchFeatures<'a> {
    /// Their grid.
    pub grid: PatchGrid,
    /// Width of a feature.
    pub dim: usize,
    /// `[rows, cols, dim]`
    pub patches: &'a [f32],
}

/// One row of a contact sheet: an image and the features of both networks.
#[derive(Clone, Copy, Debug)]
pub struct SheetRow<'a> {
    /// The image.
    pub image: ImageView<'a>,
    /// The teacher's features.
    pub teacher: PatchFeatures<'a>,
    /// The student's features.
    pub student: PatchFeatures<'a>,
}

/// Errors of drawing a contact sheet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SheetError {
    /// No rows, or more than a picture has room for.
    #[error("contact sheet: expected 1..={MAX_SHEET_ROWS} rows, got {got}")]
    Rows {
        /// Rows given.
        got: usize,
    },
    /// Features that do not make up their grid, or of another width than those of the first row.
    #[error("contact sheet: expected {expected} values of the {whose} in row {row}, got {got}")]
    Features {
        /// `teacher` or `student`.
        whose: &'static str,
        /// Counted from 0.
        row: usize,
        /// Values of the grid and the first row's width.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// Features without principal components.
    #[error("contact sheet")]
    Pca(#[from] PcaError),
    /// An image without pixels, or too large.
    #[error("contact sheet")]
    Fit(#[from] FitError),
}

/// Draws image, teacher and student side by side, a row for each of `rows`, and returns the picture as a PNG file.
///
/// Features are coloured by their three largest principal components. Where teacher and student have the same width, both are
/// shown in the teacher's components, fitted to all rows: equal features have equal colours, and a perfect student looks
/// like its teacher. Otherwise each has its own components, whose colours cannot be compared.
///
/// # Errors
/// Too many rows or none; features that do not fit their grids, differ in width between rows or are not finite.
pub fn contact_sheet(rows: &[SheetRow<'_>]) -> Result<Vec<u8>, SheetError> {
    let first = match rows {
        [first, ..] if rows.len() <= MAX_SHEET_ROWS => first,
        _ => return Err(SheetError::Rows { got: rows.len() }),
    };
    let mut teacher = fit_view("teacher", rows.iter().map(|row| row.teacher), first.teacher.dim)?;
    check("student", rows.iter().map(|row| row.student), first.student.dim)?;
    let mut student = if first.student.dim == first.teacher.dim {
        teacher.clone()
    } else {
        fit_view("student", rows.iter().map(|row| row.student), first.student.dim)?
    };
    let mut sheet = Sheet::new(rows.len());
    let mut colours = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let (width_px, height_px) = cell_size(row.image);
        // A single "patch" as large as the cell: nothing is rounded to a grid.
        let mut fit = Fit::new(Size::Exact { width_px, height_px }, 1)?;
        sheet.draw(fit.fit(row.image)?, index, 0);
        for (column, view, features) in [(1, &mut teacher, row.teacher), (2, &mut student, row.student)] {
            view.rgb_into(features.patches, &mut colours)?;
            sheet.draw_patches(&colours, features.grid, (width_px, height_px), index, column);
        }
    }
    Ok(sheet.png())
}

fn check<'a>(
    whose: &'static str,
    rows: impl Iterator<Item = PatchFeatures<'a>>,
    dim: usize,
) -> Result<(), SheetError> {
    for (row, features) in rows.enumerate() {
        let (expected, got) = (features.grid.len() * dim, features.patches.len());
        if expected != got || features.dim != dim || expected == 0 {
            return Err(SheetError::Features { whose, row, expected, got });
        }
    }
    Ok(())
}

/// Components of all rows together.
fn fit_view<'a>(
    whose: &'static str,
    rows: impl Iterator<Item = PatchFeatures<'a>> + Clone,
    dim: usize,
) -> Result<PcaView, SheetError> {
    check(whose, rows.clone(), dim)?;
    let all: Vec<f32> = rows.flat_map(|features| features.patches).copied().collect();
    Ok(PcaView::fit(&all, dim)?)
}

/// Width and height at which an image is drawn: its longer side is that of the cell.
fn cell_size(image: ImageView<'_>) -> (usize, usize) {
    let (width, height) = (image.width_px().max(1), image.height_px().max(1));
    let longer = width.max(height);
    let side = |side: usize| (side * CELL_PX).div_ceil(longer);
    (side(width), side(height))
}

/// A picture of cells.
struct Sheet {
    width_px: usize,
    height_px: usize,
    /// `[height_px, width_px, 3]`
    pixels: Vec<u8>,
}

impl Sheet {
    fn new(rows: usize) -> Self {
        let side = |cells: usize| GAP_PX + cells * (CELL_PX + GAP_PX);
        let (width_px, height_px) = (side(COLUMNS), side(rows));
        Self { width_px, height_px, pixels: vec![BACKGROUND; width_px * height_px * CHANNELS] }
    }

    /// The pixels of line `y` of the cell, `width_px` of them.
    fn line(&mut self, row: usize, column: usize, y: usize, width_px: usize) -> &mut [u8] {
        let origin = |cell: usize| GAP_PX + cell * (CELL_PX + GAP_PX);
        let start = (origin(row) + y) * self.width_px + origin(column);
        &mut self.pixels[start * CHANNELS..(start + width_px) * CHANNELS]
    }

    fn draw(&mut self, image: ImageView<'_>, row: usize, column: usize) {
        let width_px = image.width_px();
        for (y, line) in image.pixels().chunks_exact(width_px * CHANNELS).enumerate() {
            self.line(row, column, y, width_px).copy_from_slice(line);
        }
    }

    /// colours: `[grid.rows, grid.cols, 3]`, every patch a rectangle of one colour.
    fn draw_patches(
        &mut self,
        colours: &[u8],
        grid: PatchGrid,
        (width_px, height_px): (usize, usize),
        row: usize,
        column: usize,
    ) {
        for y in 0..height_px {
            let patches =
                &colours[y * grid.rows / height_px * grid.cols * CHANNELS..][..grid.cols * CHANNELS];
            let line = self.line(row, column, y, width_px);
            for (x, pixel) in line.chunks_exact_mut(CHANNELS).enumerate() {
                pixel.copy_from_slice(&patches[x * grid.cols / width_px * CHANNELS..][..CHANNELS]);
            }
        }
    }

    fn png(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let side = |side: usize| u32::try_from(side).expect("a sheet has at most MAX_SHEET_ROWS rows");
        let mut encoder = png::Encoder::new(&mut file, side(self.width_px), side(self.height_px));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::Fast);
        let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&self.pixels));
        written.expect("pixels of the stated size are written to memory");
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: PatchGrid = PatchGrid { rows: 2, cols: 4 };

    /// `[height, width, 3]` of a PNG, and its width.
    fn decode(png: &[u8]) -> (Vec<u8>, usize) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let width = reader.next_frame(&mut pixels).unwrap().width as usize;
        (pixels, width)
    }

    /// `count` patches that differ in all of `dim` directions.
    fn patches(count: usize, dim: usize) -> Vec<f32> {
        (0..count * dim).map(|index| ((index * 37 + index / dim * 11) % 97) as f32).collect()
    }

    fn features(patches: &[f32], dim: usize) -> PatchFeatures<'_> {
        PatchFeatures { grid: GRID, dim, patches }
    }

    #[test]
    fn equal_features_look_equal_and_the_image_is_itself() {
        let pixels: Vec<u8> = (0..224 * 112 * 3).map(|index| (index % 251) as u8).collect();
        let image = ImageView::new(&pixels, 224, 112).unwrap();
        let patches = patches(GRID.len(), 5);
        let row = SheetRow { image, teacher: features(&patches, 5), student: features(&patches, 5) };
        let (sheet, width) = decode(&contact_sheet(&[row, row]).unwrap());
        assert_eq!((width, sheet.len() / width / 3), (4 + 3 * 228, 4 + 2 * 228));
        let cell = |row: usize, column: usize, y: usize| {
            &sheet[((4 + row * 228 + y) * width + 4 + column * 228) * 3..][..224 * 3]
        };
        for y in 0..112 {
            assert_eq!(cell(0, 0, y), &pixels[y * 224 * 3..][..224 * 3]);
            assert_eq!(cell(1, 1, y), cell(0, 1, y));
            assert_eq!(cell(0, 1, y), cell(0, 2, y));
        }
        assert!(cell(0, 0, 112).iter().all(|value| *value == BACKGROUND), "below a wide image is background");
        // The colours are those of PcaView, a rectangle of 56 x 56 for every patch.
        let (mut view, mut colours) = (PcaView::fit(&patches.repeat(2), 5).unwrap(), Vec::new());
        view.rgb_into(&patches, &mut colours).unwrap();
        for (patch, colour) in colours.chunks_exact(3).enumerate() {
            let (row, column) = (patch / 4, patch % 4);
            for (x, y) in [(0, 0), (55, 55)] {
                assert_eq!(&cell(0, 1, row * 56 + y)[(column * 56 + x) * 3..][..3], colour);
            }
        }
    }

    #[test]
    fn widths_may_differ_between_the_networks_but_not_between_rows() {
        let pixels = [0; 28 * 14 * 3];
        let image = ImageView::new(&pixels, 28, 14).unwrap();
        let (narrow, wide) = (patches(GRID.len(), 4), patches(GRID.len(), 7));
        let row = SheetRow { image, teacher: features(&wide, 7), student: features(&narrow, 4) };
        contact_sheet(&[row]).unwrap();
        let other = SheetRow { student: features(&wide, 7), ..row };
        let error = contact_sheet(&[row, other]).unwrap_err().to_string();
        assert_eq!(error, "contact sheet: expected 32 values of the student in row 1, got 56");
        assert!(contact_sheet(&[]).is_err() && contact_sheet(&[row; MAX_SHEET_ROWS + 1]).is_err());
        let infinite = vec![f32::NAN; wide.len()];
        assert!(contact_sheet(&[SheetRow { teacher: features(&infinite, 7), ..row }]).is_err());
    }
}
