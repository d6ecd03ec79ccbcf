//! Holds the allowed directions between our crates (ARCHITECTURE.md): what is not listed here is forbidden.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Each crate of the workspace with the crates of ours that it may use. Development dependencies are free.
const ALLOWED: &[(&str, &[&str])] = &[
    ("dinov2-core", &[]),
    ("dinov2-bundled", &["dinov2-weights"]),
    (
        "dinov2-cli",
        &["dinov2-bundled", "dinov2-core", "dinov2-edge", "dinov2-files", "dinov2-kernels", "dinov2-weights"],
    ),
    ("dinov2-files", &[]),
    ("dinov2-kernels", &["dinov2-core"]),
    ("dinov2-weights", &["dinov2-core", "dinov2-files"]),
    ("dinov2-cpu", &["dinov2-core", "dinov2-kernels", "dinov2-weights"]),
    ("dinov2-wgpu", &["dinov2-core", "dinov2-files", "dinov2-weights"]),
    ("dinov2-onnx", &["dinov2-core", "dinov2-files", "dinov2-weights"]),
    ("dinov2-heads", &["dinov2-core", "dinov2-kernels"]),
    ("dinov2-eval", &["dinov2-core", "dinov2-heads"]),
    ("dinov2-io", &["dinov2-core", "dinov2-files"]),
    ("dinov2-view", &["dinov2-core", "dinov2-heads", "dinov2-io"]),
    (
        "dinov2-edge",
        &[
            "dinov2-core",
            "dinov2-files",
            "dinov2-kernels",
            "dinov2-weights",
            "dinov2-cpu",
            "dinov2-wgpu",
            "dinov2-onnx",
            "dinov2-heads",
            "dinov2-io",
            "dinov2-view",
        ],
    ),
    (
        "training",
        &[
            "dinov2-core",
            "dinov2-files",
            "dinov2-kernels",
            "dinov2-weights",
            "dinov2-cpu",
            "dinov2-eval",
            "dinov2-heads",
            "dinov2-io",
        ],
    ),
    ("dinov2-tests", &[]),
    ("xtask", &[]),
];

/// Crates that a program depends on with the library alone, itself included.
const MOST_LIBRARY_CRATES: usize = 68;

fn workspace_packages() -> Vec<Package> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata");
    metadata.packages
}

/// What is wrong with one package, in words.
fn violations(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, allowed)) = ALLOWED.iter().find(|(listed, _)| *listed == name) else {
        return vec![format!("{name}: not listed; add it with what it may depend on")];
    };
    let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    ours.filter(|dependency| dependency.kind != DependencyKind::Development)
        .filter(|dependency| !allowed.contains(&dependency.name.as_str()))
        .map(|dependency| format!("{name} -> {}: forbidden direction", dependency.name))
        .collect()
}

#[test]
fn crates_depend_only_in_the_allowed_directions() {
    let packages = workspace_packages();
    assert!(packages.iter().any(|package| package.name.as_str() == "dinov2-core"), "not our workspace");
    let wrong: Vec<String> = packages.iter().flat_map(violations).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_listed_crate_exists() {
    let packages = workspace_packages();
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let missing: Vec<_> = ALLOWED.iter().filter(|(name, _)| !names.contains(name)).collect();
    assert!(missing.is_empty(), "listed but not in the workspace: {missing:?}");
}

/// Crates in the tree of the library without its default features, itself included.
fn library_tree() -> BTreeSet<String> {
    let arguments =
        ["tree", "-p", "dinov2-edge", "--no-default-features", "--edges", "normal", "--prefix", "none"];
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).args(["--locked", "--manifest-path"]).arg(manifest).output().unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // `NAME vVERSION (PATH or (*))`
    tree.lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn the_library_stays_light() {
    let tree = library_tree();
    assert!(tree.len() < MOST_LIBRARY_CRATES, "{} crates: {tree:?}", tree.len());
    for program in ["anyhow", "clap", "ctrlc", "indicatif", "sd-notify", "tokio", "wgpu"] {
        let found = tree.iter().find(|line| line.split(' ').next() == Some(program));
        assert!(found.is_none(), "{program} belongs to programs and optional features: {found:?}");
    }
}
