//! Vectors of four numbers in plain Rust, for CPUs without an instruction set of their own here and as a second opinion in tests.

use super::{Kernel, Simd};

/// Four lanes in plain Rust: what the compiler makes of it on the target's baseline. Always available.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

const LANES: usize = 4;

/// Fused where the target's baseline has it; elsewhere `f32::mul_add` would be a slow library call.
#[inline(always)]
fn fused(x: f32, y: f32, z: f32) -> f32 {
    #[cfg(any(target_arch = "aarch64", target_feature = "fma"))]
    return x.mul_add(y, z);
    #[cfg(not(any(target_arch = "aarch64", target_feature = "fma")))]
    return x * y + z;
}

#[inline(always)]
fn zip(x: [f32; LANES], y: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    core::array::from_fn(|lane| f(x[lane], y[lane]))
}

#[expect(unsafe_code, reason = "vector loads and stores")]
impl Simd for Portable {
    type V = [f32; LANES];
    type I = [i32; LANES];
    const LANES: usize = LANES;
    const TILE_ROWS: usize = 8;
    const STORED_OFFSET: i32 = 0;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::V {
        // SAFETY: the caller vouches for LANES f32; an array of f32 is read unaligned.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::V) {
        // SAFETY: the caller vouches for LANES f32; an array of f32 is written unaligned.
        unsafe { to.cast::<Self::V>().write_unaligned(x) }
    }
    #[inline(always)]
    fn add(self, x: Self::V, y: Self::V) -> Self::V {
        zip(x, y, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, x: Self::V, y: Self::V) -> Self::V {
        zip(x, y, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, x: Self::V, y: Self::V) -> Self::V {
        zip(x, y, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, x: Self::V, y: Self::V) -> Self::V {
        zip(x, y, |x, y| x / y)
    }
    #[inline(always)]
    fn mul_add(self, x: Self::V, y: Self::V, z: Self::V) -> Self::V {
        core::array::from_fn(|lane| fused(x[lane], y[lane], z[lane]))
    }
    #[inline(always)]
    fn min(self, x: Self::V, y: Self::V) -> Self::V {
        zip(x, y, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, x: Self::V, y: Self::V) -> Self::V {
        zip(x, y, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn exp2_of_low_bits(self, x: Self::V) -> Self::V {
        x.map(|x| f32::from_bits(x.to_bits() << 23))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::V {
        // SAFETY: the caller vouches for LANES u16; an array of u16 is read unaligned.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        halves.map(|half| f32::from_bits(u32::from(half) << 16))
    }
    #[inline(always)]
    fn sum(self, x: Self::V) -> f32 {
        (x[0] + x[2]) + (x[1] + x[3])
    }
    #[inline(always)]
    fn largest(self, x: Self::V) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, |most, x| if x > most { x } else { most })
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
}
