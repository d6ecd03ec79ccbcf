//! Integer dot products in plain Rust, exact in 32 bits.

use super::super::{Portable, Simd};
use super::{Dot, DotKernel, GROUP, PanelI8, Sums};

const LANES: usize = Portable::LANES;

#[expect(unsafe_code, reason = "micro-kernels work on raw pointers")]
impl Dot for Portable {
    type Float = Portable;
    const TILE_ROWS: usize = 4;
    const SUMS_SATURATE: bool = false;
    const FAST_I16: bool = false;

    #[inline(always)]
    fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn float(self) -> Portable {
        self
    }
    #[inline(always)]
    fn dot_i8(self, sum: [i32; LANES], left: [[i32; LANES]; 2], right: [[i32; LANES]; 2]) -> [i32; LANES] {
        let mut sum = sum;
        for (left, right) in left.into_iter().zip(right) {
            for ((sum, left), right) in sum.iter_mut().zip(left).zip(right) {
                let pairs = left.to_ne_bytes().into_iter().zip(right.to_ne_bytes());
                *sum = pairs.fold(*sum, |sum, (x, w)| sum.wrapping_add(i32::from(x) * i32::from(w as i8)));
            }
        }
        sum
    }
    #[inline(always)]
    fn dot_i16(self, sum: [i32; LANES], left: [i32; LANES], right: [i32; LANES]) -> [i32; LANES] {
        core::array::from_fn(|lane| {
            let [x, y] = [left[lane], right[lane]];
            let low = i32::from(x as i16) * i32::from(y as i16);
            sum[lane].wrapping_add(low).wrapping_add((x >> 16) * (y >> 16))
        })
    }
    #[inline(always)]
    unsafe fn product_i8<const ROWS: usize>(
        self,
        left: *const u8,
        left_stride: usize,
        panel: PanelI8,
        start: Sums<Self, ROWS>,
    ) -> Sums<Self, ROWS> {
        let mut sums = start;
        for group in 0..2 * panel.steps {
            // SAFETY: the caller vouches for the panel's steps, its offsets and the rows that they point into.
            unsafe {
                let weights =
                    panel.weights.add(group * 2 * LANES * GROUP).cast::<[[[i8; GROUP]; LANES]; 2]>();
                let weights = weights.read_unaligned();
                let left = left.add(usize::from(*panel.offsets.add(group / 2)) + group % 2 * GROUP);
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factors = left.add(row * left_stride).cast::<[u8; GROUP]>().read_unaligned();
                    for (sums, weights) in sums.iter_mut().zip(&weights) {
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            let products =
                                factors.iter().zip(weights).map(|(&x, &w)| i32::from(x) * i32::from(w));
                            *sum = sum.wrapping_add(products.sum());
                        }
                    }
                }
            }
        }
        sums
    }
}
