//! Throughput of each kernel at the sizes of ViT-S/14, in GFLOP/s: the fastest of many runs.
//!
//! `cargo bench -p dinov2-kernels -- [THREADS] [ISA]`; rates are for the machine it runs on, to find what to improve.

use std::num::NonZeroUsize;
use std::time::Instant;

use dinov2_kernels::attention::{AttentionShape, KeyValuePanels, attention};
use dinov2_kernels::attention_i16::{KeyValuePanelsI16, attention_i16};
use dinov2_kernels::gemm_f32::PackedLinear;
use dinov2_kernels::gemm_half::{HalfRows, PackedLinearHalf, round_rows};
use dinov2_kernels::gemm_i8::{Int8Weight, PackedLinearI8};
use dinov2_kernels::layer_norm::{LayerNorm, layer_norm};
use dinov2_kernels::quantize::{QuantizedRows, layer_norm_quantized, quantize_rows};
use dinov2_kernels::{Epilogue, Isa, Pool};

const DIM: usize = 384;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let threads = words.first().and_then(|word| word.parse().ok()).unwrap_or(NonZeroUsize::MIN);
    let isa = words.get(1).map_or_else(Isa::detect, |name| Isa::by_name(name).expect("an available isa"));
    let pool = Pool::new(threads);
    println!("{} thread(s), {}", pool.threads(), isa.name());
    for tokens in [257, 1370] {
        for (name, n, k, epilogue) in [
            ("patch", DIM, 588, Epilogue::Store),
            ("qkv", 3 * DIM, DIM, Epilogue::Store),
            ("proj", DIM, DIM, Epilogue::Add),
            ("fc1", 4 * DIM, DIM, Epilogue::Gelu),
            ("fc2", DIM, 4 * DIM, Epilogue::Add),
        ] {
            let layer = PackedLinear::pack(isa, &vec![0.01; n * k], &vec![0.0; n], k);
            let (input, mut out) = (vec![0.5; tokens * k], vec![0.0; tokens * n]);
            let flop = 2.0 * (tokens * n * k) as f64;
            report(name, tokens, flop, || layer.apply(isa, &pool, epilogue, &input, &mut out));
            let layer = PackedLinearHalf::pack(isa, &vec![0.01; n * k], &vec![0.0; n], k);
            let mut rounded = HalfRows::default();
            round_rows(isa, &pool, &input, k, &mut rounded);
            report(&format!("{name} half"), tokens, flop, || {
                layer.apply(isa, &pool, epilogue, &rounded, &mut out);
            });
            let mut quantized = QuantizedRows::default();
            quantize_rows(isa, &pool, &input, k, &mut quantized);
            let (scale, bias, values) = (vec![0.01; n], vec![0.0; n], vec![31; n * k]);
            let weight = Int8Weight { values: &values, scale: &scale, bias: &bias, k };
            let layer = PackedLinearI8::pack(isa, weight);
            report(&format!("{name} i8"), tokens, flop, || {
                layer.apply(isa, &pool, epilogue, &quantized, &mut out);
            });
            report(&format!("{name} quant"), tokens, 8.0 * (tokens * k) as f64, || {
                quantize_rows(isa, &pool, &input, k, &mut quantized);
            });
        }
        let shape = AttentionShape { tokens, heads: 6, head_dim: 64 };
        let (qkv, mut out) = (vec![0.1; tokens * 3 * DIM], vec![0.0; tokens * DIM]);
        let mut scratch = KeyValuePanels::default();
        let flop = 4.0 * (tokens * tokens * DIM) as f64;
        report("attention", tokens, flop, || attention(isa, &pool, shape, &qkv, &mut scratch, &mut out));
        let mut scratch = KeyValuePanelsI16::default();
        report("attn i16", tokens, flop, || attention_i16(isa, &pool, shape, &qkv, &mut scratch, &mut out));
        let (gamma, input, mut normed) = (vec![1.0; DIM], vec![0.5; tokens * DIM], vec![0.0; tokens * DIM]);
        let params = LayerNorm { gamma: &gamma, beta: &gamma, eps: 1e-6 };
        report("layer_norm", tokens, 8.0 * (tokens * DIM) as f64, || {
            layer_norm(isa, &pool, &params, &input, &mut normed);
        });
        let mut quantized = QuantizedRows::default();
        report("norm quant", tokens, 12.0 * (tokens * DIM) as f64, || {
            layer_norm_quantized(isa, &pool, &params, &input, &mut quantized);
        });
    }
}

fn report(name: &str, tokens: usize, flop: f64, mut work: impl FnMut()) {
    let budget = Instant::now();
    let mut fastest = f64::INFINITY;
    while budget.elapsed().as_secs_f64() < 0.4 {
        let start = Instant::now();
        work();
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    println!("{name:<11} n={tokens:<5} {:>9.1} us {:>7.1} GFLOP/s", fastest * 1e6, flop / fastest * 1e-9);
}
