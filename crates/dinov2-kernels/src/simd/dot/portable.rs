use super::super::{Portable, Simd};
use super::{Dot, DotKernel, GROUP, PanelI8, Sums};

const LANES: usize = Portable::LANES;

#[expect(unsafe_code, reason = "micro-kernels work on raw pointers")]
impl Dot for Portable {
    type Float = Portable;
    type I = [i32; LANES];
    const TILE_ROWS: usize = 4;
    const SUMS_SATURATE: bool = false;
    const STORED_OFFSET: i32 = 0;
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
    fn splat_i32(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load_i32(self, from: *const i32) -> Self::I {
        // SAFETY: the caller vouches for LANES i32; an array is read unaligned.
        unsafe { from.cast::<Self::I>().read_unaligned() }
    }
    #[inline(always)]
    fn mul_i32(self, x: Self::I, y: Self::I) -> Self::I {
        core::array::from_fn(|lane| x[lane].wrapping_mul(y[lane]))
    }
    #[inline(always)]
    fn to_f32(self, x: Self::I) -> [f32; LANES] {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    unsafe fn store_factors(self, to: *mut u8, x: [f32; LANES]) {
        // SAFETY: the caller vouches for LANES bytes.
        unsafe { to.cast::<[u8; LANES]>().write_unaligned(x.map(|x| x as u8)) }
    }
    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16, x: [f32; LANES]) {
        // 1.5 * 2^23: adding it leaves no fraction bits, so the addition rounds to nearest even.
        const ROUND: f32 = 12_582_912.0;
        // SAFETY: the caller vouches for LANES i16.
        unsafe { to.cast::<[i16; LANES]>().write_unaligned(x.map(|x| ((x + ROUND) - ROUND) as i16)) }
    }
    #[inline(always)]
    fn dot_i8(self, sum: Self::I, left: [Self::I; 2], right: [Self::I; 2]) -> Self::I {
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
    fn dot_i16(self, sum: Self::I, left: Self::I, right: Self::I) -> Self::I {
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
    #[inline(always)]
    unsafe fn product_i16<const ROWS: usize>(
        self,
        left: *const i16,
        left_stride: usize,
        right: *const i16,
        pairs: usize,
    ) -> Sums<Self, ROWS> {
        let mut sums = [[[0i32; LANES]; 2]; ROWS];
        for pair in 0..pairs {
            // SAFETY: the caller vouches for both operands.
            unsafe {
                let right = right.add(pair * 4 * LANES).cast::<[[[i16; 2]; LANES]; 2]>().read_unaligned();
                for (row, sums) in sums.iter_mut().enumerate() {
                    let left = left.add(row * left_stride + 2 * pair).cast::<[i16; 2]>().read_unaligned();
                    for (sums, right) in sums.iter_mut().zip(&right) {
                        for (sum, right) in sums.iter_mut().zip(right) {
                            let products = i32::from(left[0]) * i32::from(right[0]);
                            *sum = sum.wrapping_add(products + i32::from(left[1]) * i32::from(right[1]));
                        }
                    }
                }
            }
        }
        sums
    }
}
