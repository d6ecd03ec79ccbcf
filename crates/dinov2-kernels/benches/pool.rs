//! The thread pool beside rayon's: the time of one parallel step, in turns of a hundred steps in one run.
//!
//! `cargo bench -p dinov2-kernels --bench pool`; a table of medians and 95th percentiles in microseconds. A step is empty,
//! or some 100 us of multiply-adds on one thread, split evenly into tasks. Tables are for the machine it runs on.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use dinov2_kernels::Pool;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Turns of each pool for each row.
const TURNS: usize = 40;

/// Steps of a turn that are timed: about a frame's.
const STEPS: usize = 100;

/// Steps of a turn before these, to wake the threads.
const WARMUP: usize = 20;

/// Between turns: longer than either pool's idle threads spin, which would take the cores from the other.
const PAUSE: Duration = Duration::from_millis(2);

/// Microseconds of work in a step, on one thread.
const STEP_US: f64 = 100.0;

/// Length of the vectors that work consists of: 8 KiB, in the first-level cache like a GEMM's panel.
const LEN: usize = 2048;

/// Multiply-adds over a vector, `rounds` times.
fn work(rounds: usize) {
    let mut values = [1.0f32; LEN];
    for _ in 0..rounds {
        let (factor, term) = (black_box(0.5), black_box(0.5));
        values.iter_mut().for_each(|value| *value = *value * factor + term);
    }
    black_box(&values);
}

/// Rounds of [`work`] that take [`STEP_US`]: of many tries the fastest, so that other processes do not count.
fn rounds_of_a_step() -> usize {
    const ROUNDS: usize = 200;
    let mut fastest = f64::INFINITY;
    for _ in 0..500 {
        fastest = fastest.min(micros(|| work(ROUNDS)));
    }
    (ROUNDS as f64 * STEP_US / fastest).round() as usize
}

/// Times the steps of one turn, in microseconds.
fn turn(samples: &mut Vec<f64>, step: impl Fn()) {
    std::thread::sleep(PAUSE);
    (0..WARMUP).for_each(|_| step());
    samples.extend((0..STEPS).map(|_| micros(&step)));
}

fn micros(step: impl FnOnce()) -> f64 {
    let start = Instant::now();
    step();
    start.elapsed().as_secs_f64() * 1e6
}

/// Median and 95th percentile.
fn summary(mut samples: Vec<f64>) -> [f64; 2] {
    samples.sort_by(f64::total_cmp);
    [samples[samples.len() / 2], samples[samples.len() * 95 / 100]]
}

fn main() {
    let step = rounds_of_a_step();
    println!("a step of {STEP_US} us is {step} rounds; {} steps of each a row, us", TURNS * STEPS);
    let heads = ["ours", "p95", "rayon", "p95", "ours/rayon"];
    println!("| threads | tasks | work us | {} |", heads.join(" | "));
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for threads in [1, 2, 4] {
        let ours = Pool::new(NonZeroUsize::new(threads).expect("at least one"));
        let theirs = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of rayon's");
        for (tasks, rounds) in [(12, 0), (48, 0), (12, step), (48, step)] {
            let task = |_| work_or_nothing(rounds / tasks);
            let (mut our_us, mut their_us) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                turn(&mut our_us, || ours.run(tasks, &task));
                // Called from within, as by a program that runs whole frames on it: to enter from outside costs more.
                // One task is the least that is split off, as in our pool.
                let step = || (0..tasks).into_par_iter().with_max_len(1).for_each(task);
                theirs.install(|| turn(&mut their_us, step));
            }
            let ([our, our_p95], [their, their_p95]) = (summary(our_us), summary(their_us));
            let work_us = if rounds == 0 { 0.0 } else { STEP_US };
            println!(
                "| {threads} | {tasks} | {work_us} | {our:.1} | {our_p95:.1} | {their:.1} | {their_p95:.1} | {:.2} |",
                our / their
            );
        }
    }
}

fn work_or_nothing(rounds: usize) {
    if rounds > 0 {
        work(rounds);
    }
}
