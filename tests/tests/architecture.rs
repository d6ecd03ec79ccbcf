//! Holds the allowed directions between our crates (ARCHITECTURE.md): what is not listed here is forbidden.

use std::collections::BTreeSet;
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Each crate of the workspace with the crates of ours that it may use. Development dependencies are free.
const ALLOWED: &[(&str, &[&str])] = &[
    ("dinov2-core", &[]),
    ("dinov2-files", &[]),
    ("dinov2-kernels", &["dinov2-core"]),
    ("dinov2-weights", &["dinov2-core", "dinov2-files"]),
    ("dinov2-cpu", &["dinov2-core", "dinov2-kernels", "dinov2-weights"]),
    ("dinov2-wgpu", &["dinov2-core", "dinov2-weights"]),
    ("dinov2-onnx", &["dinov2-core", "dinov2-files", "dinov2-weights"]),
    ("dinov2-heads", &["dinov2-core", "dinov2-kernels"]),
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
            "dinov2-heads",
            "dinov2-io",
        ],
    ),
    ("dinov2-tests", &[]),
    ("xtask", &[]),
];

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
