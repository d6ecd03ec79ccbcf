//! Instruction sets: a small vector vocabulary ([`Simd`]), its instances, and [`Isa`], the proof of what this CPU has.
//!
//! A kernel is a struct that implements [`Kernel`]; [`Isa::run`] instantiates it for the detected instruction set.
//! Values of the vector types exist only where a token of their instruction set does, and tokens come only from
//! detection, so no kernel can run on a CPU that lacks it.
//!
//! ```
//! use dinov2_kernels::Isa;
//! use dinov2_kernels::simd::{Kernel, Simd};
//!
//! /// The sum of as many ones as a vector has lanes.
//! struct Ones;
//!
//! impl Kernel for Ones {
//!     type Output = f32;
//!
//!     #[inline(always)]
//!     fn run<S: Simd>(self, simd: S) -> f32 {
//!         simd.sum(simd.splat(1.0))
//!     }
//! }
//!
//! let isa = Isa::detect();
//! assert_eq!(isa.run(Ones), isa.panel_cols() as f32 / 2.0);
//! ```

/// Methods of a token, each written as `fn name(arguments) -> result { body }` without `self`. The body is safe code in which
/// `$features` are enabled: intrinsics without pointers can be called there.
///
/// The type of `self` must be a token whose `detect` has checked `$features`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! feature_methods {
    ($features:literal: $(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => { $(
        #[inline(always)]
        fn $name(self, $($argument: $type),*) -> $result {
            #[inline]
            #[target_feature(enable = $features)]
            fn enabled($($argument: $type),*) -> $result $body
            // SAFETY: `self` is a token, so this CPU has `$features`.
            unsafe { enabled($($argument),*) }
        }
    )* };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod dot;
pub mod half;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2Fma;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512F;
#[cfg(target_arch = "x86_64")]
pub use dot::{Avx512Vnni, AvxVnni};
#[cfg(target_arch = "aarch64")]
pub use dot::{NeonDotprod, NeonI8mm};
#[cfg(target_arch = "x86_64")]
pub use half::Avx512Bf16;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use portable::Portable;

use dot::{Dot, DotKernel};
use half::{Half, HalfFormat, HalfKernel, Widened};

/// Most rows that a GEMM micro-tile of any instruction set has.
pub const MAX_TILE_ROWS: usize = 12;

/// Most lanes of any instruction set.
pub const MAX_LANES: usize = 16;

/// One instruction set's vectors of f32. A value of the implementing type proves that the CPU has it.
///
/// Loads and stores take raw pointers, because kernels prove their bounds once per tile.
#[expect(unsafe_code, reason = "vector loads and stores")]
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector of [`Self::LANES`] f32.
    type V: Copy;
    /// A vector of as many i32.
    type I: Copy;
    /// f32 per vector; at most [`MAX_LANES`].
    const LANES: usize;
    /// Rows of a GEMM micro-tile (two vectors wide): as many as the registers hold; at most [`MAX_TILE_ROWS`].
    const TILE_ROWS: usize;
    /// What a stored factor lacks to the quantized value `0..=255`: 0, or 128 where the set multiplies signed bytes.
    const STORED_OFFSET: i32;

    /// Runs a kernel with this instruction set enabled for the code generator.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;
    /// Every lane `x`.
    fn splat(self, x: f32) -> Self::V;
    /// # Safety
    /// `from` is valid for reading `LANES` f32; any alignment.
    unsafe fn load(self, from: *const f32) -> Self::V;
    /// # Safety
    /// `to` is valid for writing `LANES` f32; any alignment.
    unsafe fn store(self, to: *mut f32, x: Self::V);
    /// `x + y`.
    fn add(self, x: Self::V, y: Self::V) -> Self::V;
    /// `x - y`.
    fn sub(self, x: Self::V, y: Self::V) -> Self::V;
    /// `x * y`.
    fn mul(self, x: Self::V, y: Self::V) -> Self::V;
    /// `x / y`.
    fn div(self, x: Self::V, y: Self::V) -> Self::V;
    /// `x * y + z`; rounded once where the CPU has fused multiply-add.
    fn mul_add(self, x: Self::V, y: Self::V, z: Self::V) -> Self::V;
    /// Lane-wise minimum; `y` where `x` is NaN. `y` itself is never NaN.
    fn min(self, x: Self::V, y: Self::V) -> Self::V;
    /// Lane-wise maximum; `y` where `x` is NaN. `y` itself is never NaN.
    fn max(self, x: Self::V, y: Self::V) -> Self::V;
    /// Rounded to a whole number, ties to even, for |x| up to 2^22; larger values come back as some large number of the
    /// same sign.
    #[inline(always)]
    fn round(self, x: Self::V) -> Self::V {
        // 1.5 * 2^23: adding it leaves no fraction bits.
        let shift = self.splat(12_582_912.0);
        self.sub(self.add(x, shift), shift)
    }
    /// `2^(b - 127)`, where `b` (1 to 254) is the integer in the low eight bits of a lane: the bits moved into the
    /// exponent.
    fn exp2_of_low_bits(self, x: Self::V) -> Self::V;
    /// Loads bf16 as f32.
    ///
    /// # Safety
    /// `from` is valid for reading `LANES` u16; any alignment.
    unsafe fn load_bf16(self, from: *const u16) -> Self::V;
    /// Sum of the lanes.
    fn sum(self, x: Self::V) -> f32;
    /// Largest lane.
    fn largest(self, x: Self::V) -> f32;
    /// Every lane `x`.
    fn splat_i32(self, x: i32) -> Self::I;
    /// # Safety
    /// `from` is valid for reading `LANES` i32; any alignment.
    unsafe fn load_i32(self, from: *const i32) -> Self::I;
    /// `x * y`, the low 32 bits.
    fn mul_i32(self, x: Self::I, y: Self::I) -> Self::I;
    /// Rounded to nearest.
    fn to_f32(self, x: Self::I) -> Self::V;
    /// Stores the quantized values `x`, whole numbers in `0..=255`, as bytes, less [`Self::STORED_OFFSET`].
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` bytes.
    unsafe fn store_factors(self, to: *mut u8, x: Self::V);
    /// Rounds to nearest even and stores as i16; |x| is at most 32767.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` i16.
    unsafe fn store_i16(self, to: *mut i16, x: Self::V);
}

/// The vector at `at`, zero beyond the slice.
#[inline(always)]
#[expect(unsafe_code, reason = "vector loads")]
pub(crate) fn load_padded<S: Simd>(simd: S, from: &[f32], at: usize) -> S::V {
    if at + S::LANES <= from.len() {
        // SAFETY: LANES values lie within the slice.
        return unsafe { simd.load(from.as_ptr().add(at)) };
    }
    let mut lanes = [0.0f32; MAX_LANES];
    lanes[..from.len() - at].copy_from_slice(&from[at..]);
    // SAFETY: MAX_LANES is at least LANES.
    unsafe { simd.load(lanes.as_ptr()) }
}

/// Code that is instantiated per instruction set. Implementations mark `run` `#[inline(always)]`.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// The body, with the instruction set's token.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The instruction set that an engine uses.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Isa {
    /// Plain code, vectorised by the compiler for the target's baseline.
    Portable(Portable),
    /// 8 lanes, fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2Fma),
    /// AVX2, and VNNI for integers.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// 16 lanes, 32 registers.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512F),
    /// AVX-512, and VNNI for integers.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// AVX-512, VNNI for integers and BF16 for 16-bit floats.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(Avx512Bf16),
    /// 4 lanes, 32 registers, fused multiply-add.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// NEON, `sdot` for integers and f16.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(NeonDotprod),
    /// NEON, `smmla` for integers and f16.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(NeonI8mm),
}

impl Isa {
    /// The widest instruction set that this CPU has.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Isa::Portable(Portable))
    }

    /// Every instruction set that this CPU has, narrowest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        let portable = [Some(Isa::Portable(Portable))];
        #[cfg(target_arch = "x86_64")]
        let wide = [
            Avx2Fma::detect().map(Isa::Avx2),
            AvxVnni::detect().map(Isa::AvxVnni),
            Avx512F::detect().map(Isa::Avx512),
            Avx512Vnni::detect().map(Isa::Avx512Vnni),
            Avx512Bf16::detect().map(Isa::Avx512Bf16),
        ];
        #[cfg(target_arch = "aarch64")]
        let wide = [
            Neon::detect().map(Isa::Neon),
            NeonDotprod::detect().map(Isa::NeonDotprod),
            NeonI8mm::detect().map(Isa::NeonI8mm),
        ];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let wide = [];
        portable.into_iter().chain(wide).flatten()
    }

    /// The available instruction set of this [`Self::name`].
    pub fn by_name(name: &str) -> Option<Self> {
        Self::available().find(|isa| isa.name() == name)
    }

    /// `portable`, `avx2`, `avxvnni`, `avx512`, `avx512vnni`, `avx512bf16`, `neon`, `dotprod` or `i8mm`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(_) => "avx512bf16",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(_) => "i8mm",
        }
    }

    /// Runs the kernel's instance for this instruction set.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable(simd) => Simd::run(simd, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => Simd::run(simd, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(dot) => Simd::run(dot.float(), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => Simd::run(simd, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(dot) => Simd::run(dot.float(), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(half) => Simd::run(half.float(), kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => Simd::run(simd, kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(dot) => Simd::run(Dot::float(dot), kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(dot) => Simd::run(Dot::float(dot), kernel),
        }
    }

    /// Runs the instance of a kernel with integer dot products.
    pub fn run_dot<K: DotKernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable(dot) => Dot::run(dot, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(dot) => Dot::run(dot, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(dot) => Dot::run(dot, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(dot) => Dot::run(dot, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(dot) => Dot::run(dot, kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(half) => Dot::run(half.dot(), kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(dot) => Dot::run(dot, kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(dot) => Dot::run(dot, kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(dot) => Dot::run(dot, kernel),
        }
    }

    /// Runs the instance of a kernel with 16-bit floats.
    pub fn run_half<K: HalfKernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Portable(simd) => Half::run(Widened(simd), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => Half::run(Widened(simd), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(dot) => Half::run(Widened(dot.float()), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => Half::run(Widened(simd), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(dot) => Half::run(Widened(dot.float()), kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16(half) => Half::run(half, kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => Half::run(Widened(simd), kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(half) => Half::run(half, kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(half) => Half::run(half, kernel),
        }
    }

    /// The format of its 16-bit floats.
    pub fn half_format(self) -> HalfFormat {
        self.run_half(HalfSizes).0
    }

    /// Whether it multiplies 16-bit floats faster than f32.
    pub fn has_fast_half(self) -> bool {
        self.run_half(HalfSizes).1
    }

    /// Rows of a micro-tile of 16-bit floats.
    pub fn half_tile_rows(self) -> usize {
        self.run_half(HalfSizes).2
    }

    /// Bytes of a stored factor of a GEMM in 16-bit floats.
    pub(crate) fn half_factor_bytes(self) -> usize {
        self.run_half(HalfSizes).3
    }

    /// Columns of a GEMM panel: two vectors.
    pub fn panel_cols(self) -> usize {
        self.run(Sizes).0
    }

    /// Rows of a GEMM micro-tile.
    pub fn tile_rows(self) -> usize {
        self.run(Sizes).1
    }

    /// Rows of an int8 GEMM micro-tile.
    pub fn dot_tile_rows(self) -> usize {
        self.run_dot(Sizes)
    }
}

/// Reads an instruction set's constants: columns of a panel and rows of a tile.
struct Sizes;

impl Kernel for Sizes {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> (usize, usize) {
        (2 * S::LANES, S::TILE_ROWS)
    }
}

/// Reads the constants of an instruction set's 16-bit floats: format, whether they are fast, rows of a tile, bytes
/// of a factor.
struct HalfSizes;

impl HalfKernel for HalfSizes {
    type Output = (HalfFormat, bool, usize, usize);

    #[inline(always)]
    fn run<H: Half>(self, _half: H) -> Self::Output {
        (H::FORMAT, H::FAST, H::TILE_ROWS, size_of::<H::Factor>())
    }
}

impl DotKernel for Sizes {
    type Output = usize;

    #[inline(always)]
    fn run<D: Dot>(self, _dot: D) -> usize {
        D::TILE_ROWS
    }
}

/// Instruction sets that a test is to cover; says loudly which known ones this CPU lacks. Under emulation those are left out that
/// another machine tests faster: `DINOV2_ISAS_TESTED` names them, with commas between.
#[cfg(test)]
pub(crate) fn isas_under_test() -> alloc::vec::Vec<Isa> {
    #[cfg(target_arch = "x86_64")]
    const KNOWN: &[&str] = &["portable", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16"];
    #[cfg(target_arch = "aarch64")]
    const KNOWN: &[&str] = &["portable", "neon", "dotprod", "i8mm"];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    const KNOWN: &[&str] = &["portable"];
    let available: alloc::vec::Vec<Isa> = Isa::available().collect();
    for known in KNOWN {
        if !available.iter().any(|isa| isa.name() == *known) {
            std::eprintln!("SKIPPED: this CPU has no {known}");
        }
    }
    let tested = std::env::var("DINOV2_ISAS_TESTED").unwrap_or_default();
    available.into_iter().filter(|isa| tested.split(',').all(|name| name != isa.name())).collect()
}
