//! Time and memory of curation's two expensive steps on random embeddings.
//!
//!     cargo run --release -p training --example curate_speed -- 100000 384 32

use std::time::Instant;

use training::curate::{Embeddings, Hierarchy, HierarchyOptions, neighbours_within};

fn main() {
    let mut numbers =
        std::env::args().skip(1).map(|word| word.parse::<usize>().expect("ROWS DIM NEIGHBOURS"));
    let mut next = |default| numbers.next().unwrap_or(default);
    let (rows, dim, most) = (next(50_000), next(384), next(32));
    let mut embeddings = Embeddings::new(dim);
    let (mut state, mut row) = (1_u32, vec![0.0; dim]);
    for _ in 0..rows {
        for value in &mut row {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
        }
        embeddings.push(&row);
    }
    let started = Instant::now();
    let found = neighbours_within(&embeddings, most, &mut |_| {});
    let seconds = started.elapsed().as_secs_f64();
    let products = rows as f64 * rows as f64 / 2.0;
    let million = seconds * (1e6 / rows as f64).powi(2);
    println!(
        "{most} neighbours of each of {rows} x {dim}: {seconds:.1} s, {:.1} GFLOP/s, a million: {:.2} h; best {:.3}",
        products * 2.0 * dim as f64 / seconds / 1e9,
        million / 3_600.0,
        found.of(0)[0].cosine,
    );
    let started = Instant::now();
    let clusters = rows / 50;
    let options =
        HierarchyOptions { levels: vec![clusters, clusters / 10], iterations: 5, resampling: 1, seed: 0 };
    Hierarchy::build(&embeddings, &options, &mut |_| {});
    println!(
        "clusters {:?}, 5 iterations, 1 resampling: {:.1} s",
        options.levels,
        started.elapsed().as_secs_f64()
    );
    if let Some(peak) = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| status.lines().find(|line| line.starts_with("VmHWM")).map(ToString::to_string))
    {
        println!("{peak}");
    }
}
