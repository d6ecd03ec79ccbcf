//! One command for everything that CI checks: `cargo xtask ci`.

mod arm;
mod asan;
mod avx512;
mod camera_vm;
mod fuzz;
mod gpu_report;
mod lavapipe;
mod loom;
mod steps;
mod wasm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::gpu_report::Effort;

const USAGE: &str = "usage: cargo xtask COMMAND

  ci   [--skip-tests] [--fuzz-seconds N]
       fmt, clippy, tests, rustdoc, packages, cargo-deny, wasm, lavapipe, asan, loom, avx512, arm, camera-vm,
       fuzzing (N seconds per target, default 10)
  asan
       the kernels' tests under AddressSanitizer (nightly)
  avx512
       the kernels' tests on an emulated CPU with AVX-512 (.ci/bochs builds the emulator)
  camera-vm
       the program and the camera source on a V4L2 driver, in a virtual machine (.ci/camera-vm fetches its kernel)
  arm
       the engine's tests for aarch64, under qemu
  gpu-report [--cuda]
       a folder, target/gpu-report, to carry to a machine with a GPU and to run there (--cuda: with training's
       measuring programs, which need a CUDA toolkit to build)
  gpu-measure FOLDER [--quick]
       what that folder's script runs (--quick: small and few, on a software driver)
  lavapipe
       the GPU engine's tests on a software driver with cooperative matrices (.ci/lavapipe fetches it)
  loom
       the thread pool's memory orderings under a model checker
  wasm
       whether the GPU engine compiles for wasm32 (.ci/wasm fetches the standard library's sources)
  fuzz [--seconds N] [TARGET]…
       fuzz every target, or those named, N seconds each (default 60)";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Arm,
    Asan,
    Avx512,
    CameraVm,
    Ci { skip_tests: bool, fuzz_seconds: u32 },
    Fuzz { seconds: u32, targets: Vec<String> },
    GpuMeasure { folder: PathBuf, effort: Effort },
    GpuReport { cuda: bool },
    Lavapipe,
    Loom,
    Wasm,
}

fn parse(words: &[String]) -> Result<Command> {
    let mut words = words.iter().map(String::as_str);
    match words.next() {
        Some("ci") => parse_ci(&mut words),
        Some("fuzz") => parse_fuzz(&mut words),
        Some("gpu-report") => match (words.next(), words.next()) {
            (None, _) => Ok(Command::GpuReport { cuda: false }),
            (Some("--cuda"), None) => Ok(Command::GpuReport { cuda: true }),
            _ => bail!("{USAGE}"),
        },
        Some("gpu-measure") => match (words.next(), words.next(), words.next()) {
            (Some(folder), None, _) => {
                Ok(Command::GpuMeasure { folder: folder.into(), effort: Effort::Full })
            }
            (Some(folder), Some("--quick"), None) => {
                Ok(Command::GpuMeasure { folder: folder.into(), effort: Effort::Quick })
            }
            _ => bail!("{USAGE}"),
        },
        Some("arm") if words.next().is_none() => Ok(Command::Arm),
        Some("asan") if words.next().is_none() => Ok(Command::Asan),
        Some("avx512") if words.next().is_none() => Ok(Command::Avx512),
        Some("camera-vm") if words.next().is_none() => Ok(Command::CameraVm),
        Some("lavapipe") if words.next().is_none() => Ok(Command::Lavapipe),
        Some("loom") if words.next().is_none() => Ok(Command::Loom),
        Some("wasm") if words.next().is_none() => Ok(Command::Wasm),
        _ => bail!("{USAGE}"),
    }
}

fn parse_ci<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Command> {
    let (mut skip_tests, mut fuzz_seconds) = (false, 10);
    while let Some(word) = words.next() {
        match word {
            "--skip-tests" => skip_tests = true,
            "--fuzz-seconds" => fuzz_seconds = seconds(words.next())?,
            _ => bail!("{USAGE}"),
        }
    }
    Ok(Command::Ci { skip_tests, fuzz_seconds })
}

fn parse_fuzz<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Command> {
    let (mut per_target, mut targets) = (60, Vec::new());
    while let Some(word) = words.next() {
        match word {
            "--seconds" => per_target = seconds(words.next())?,
            target if !target.starts_with('-') => targets.push(target.to_owned()),
            _ => bail!("{USAGE}"),
        }
    }
    Ok(Command::Fuzz { seconds: per_target, targets })
}

fn seconds(word: Option<&str>) -> Result<u32> {
    match word.map(str::parse) {
        Some(Ok(seconds)) => Ok(seconds),
        _ => bail!("seconds: expected a whole number, got {:?}", word.unwrap_or_default()),
    }
}

fn run(words: &[String]) -> Result<()> {
    match parse(words)? {
        Command::Ci { skip_tests, fuzz_seconds } => steps::ci(skip_tests, fuzz_seconds),
        Command::Arm => arm::arm(),
        Command::Asan => asan::asan(),
        Command::Avx512 => avx512::avx512(),
        Command::CameraVm => camera_vm::camera_vm(),
        Command::Fuzz { seconds, targets } => fuzz::fuzz(seconds, &targets),
        Command::GpuMeasure { folder, effort } => gpu_report::measure(&folder, effort),
        Command::GpuReport { cuda } => gpu_report::bundle(cuda),
        Command::Lavapipe => lavapipe::lavapipe(),
        Command::Loom => loom::loom(),
        Command::Wasm => wasm::wasm(),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Result<Command> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn command_lines() {
        let ci = |skip_tests, fuzz_seconds| Command::Ci { skip_tests, fuzz_seconds };
        assert_eq!(command("ci").unwrap(), ci(false, 10));
        assert_eq!(command("ci --fuzz-seconds 3 --skip-tests").unwrap(), ci(true, 3));
        let targets = vec!["pth".to_owned(), "y4m".to_owned()];
        assert_eq!(command("fuzz pth --seconds 5 y4m").unwrap(), Command::Fuzz { seconds: 5, targets });
        assert_eq!(command("arm").unwrap(), Command::Arm);
        assert_eq!(command("asan").unwrap(), Command::Asan);
        assert_eq!(command("avx512").unwrap(), Command::Avx512);
        assert_eq!(command("camera-vm").unwrap(), Command::CameraVm);
        assert_eq!(command("lavapipe").unwrap(), Command::Lavapipe);
        assert_eq!(command("loom").unwrap(), Command::Loom);
        assert_eq!(command("wasm").unwrap(), Command::Wasm);
        assert_eq!(command("fuzz").unwrap(), Command::Fuzz { seconds: 60, targets: Vec::new() });
        assert_eq!(command("gpu-report --cuda").unwrap(), Command::GpuReport { cuda: true });
        let quick = Command::GpuMeasure { folder: "x".into(), effort: Effort::Quick };
        assert_eq!(command("gpu-measure x --quick").unwrap(), quick);
        for wrong in [
            "gpu-report x",
            "gpu-measure",
            "gpu-measure x --slow",
            "",
            "cy",
            "ci --fuzz-seconds",
            "ci --fuzz-seconds x",
            "fuzz --seconds",
            "fuzz --what",
            "ci y",
            "arm x",
            "asan x",
            "avx512 x",
            "camera-vm x",
            "lavapipe x",
            "loom x",
            "wasm x",
        ] {
            assert!(command(wrong).is_err(), "{wrong}");
        }
    }
}
