//! Broken and hostile ONNX files: one clear error each, no panic.

mod common;

use std::path::Path;

use bytes::Bytes;
use common::Fixture;
use dinov2_weights::onnx::proto::{ModelProto, data_type};
use dinov2_weights::onnx::{self, Backbone};
use prost::Message;

fn import(bytes: Vec<u8>, folder: Option<&Path>) -> Result<Backbone, String> {
    let model = onnx::decode(Bytes::from(bytes), "x.onnx").map_err(|error| error.to_string())?;
    onnx::backbone(&model, folder, "x.onnx").map_err(|error| error.to_string())
}

fn whole(name: &str) -> Vec<u8> {
    std::fs::read(Fixture::load(name).onnx).unwrap()
}

/// Imports a fixture after a change to it; returns the error.
fn refused(name: &str, change: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = ModelProto::decode(whole(name).as_slice()).unwrap();
    change(&mut model);
    let message = import(model.encode_to_vec(), None).unwrap_err();
    assert!(!message.contains('\n') && message.ends_with(" in x.onnx"), "{message}");
    message
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = whole("hugging_face");
    let tensors = import(bytes.clone(), None).unwrap().checkpoint.tensors.len();
    let mut passed = 0;
    for length in 0..bytes.len() {
        if let Ok(backbone) = import(bytes[..length].to_vec(), None) {
            // Only what follows the graph (the operator sets) may be missing unnoticed.
            assert_eq!(backbone.checkpoint.tensors.len(), tensors);
            passed += 1;
        }
    }
    assert!(passed <= 2, "{passed}");
}

#[test]
fn changed_bytes_do_not_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for name in ["hugging_face", "timm_registers", "half_decoder"] {
        let bytes = whole(name);
        for _ in 0..1_000 {
            let mut changed = bytes.clone();
            for _ in 0..1 + random(8) {
                let place = random(changed.len());
                changed[place] = random(256) as u8;
            }
            let _ = import(changed, None);
        }
    }
}

#[test]
fn empty_messages_do_not_take_memory() {
    // A graph of 4 M empty nodes: 8 MB in the file, gigabytes when decoded.
    let nodes = [0x0a, 0x00].repeat(4 << 20);
    let mut bytes = vec![0x3a];
    prost::encoding::encode_varint(nodes.len() as u64, &mut bytes);
    bytes.extend(nodes);
    let message = import(bytes, None).unwrap_err();
    assert!(
        message.starts_with("graph: expected at most 268435456 bytes of structure, got more"),
        "{message}"
    );
}

#[test]
fn external_data_stays_in_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(outer.path().join("secret"), [0; 1 << 16]).unwrap();
    std::fs::write(folder.join("short"), [0; 8]).unwrap();
    let located = |location: &str, offset: &str| {
        let mut model = ModelProto::decode(whole("registers_swiglu").as_slice()).unwrap();
        for tensor in &mut model.graph.as_mut().unwrap().initializer {
            for entry in &mut tensor.external_data {
                match entry.key.as_str() {
                    "location" => entry.value = location.into(),
                    "offset" => entry.value = offset.into(),
                    _ => {}
                }
            }
        }
        import(model.encode_to_vec(), Some(&folder)).unwrap_err()
    };
    let secret = outer.path().join("secret");
    for location in ["../secret", secret.to_str().unwrap(), "./../secret", "sub/../../secret", ""] {
        let message = located(location, "0");
        assert!(message.contains("expected a file in the model's folder"), "{location}: {message}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&secret, folder.join("link")).unwrap();
        assert!(located("link", "0").contains("expected a file in the model's folder"));
    }
    assert!(located("missing", "0").contains("external data \"missing\""));
    assert!(located("short", "0").contains("got a file of 8 (short)"));
    assert!(located("short", "18446744073709551615").contains("got a file of 8 (short)"));
    assert!(located("short", "-1").contains("external offset: expected a number"));
}

#[test]
fn other_graphs_are_named() {
    let graph = |model: &mut ModelProto, op_type: &str, other: &str| {
        for node in &mut model.graph.as_mut().unwrap().node {
            if node.op_type == op_type {
                node.op_type = other.into();
            }
        }
    };
    assert_eq!(
        refused("hugging_face", |model| model.graph = None),
        "ONNX: expected a graph, got none in x.onnx"
    );
    let message = refused("hugging_face", |model| model.graph = Some(Default::default()));
    assert_eq!(message, "graph: expected a DINOv2 backbone, got no LayerNorm in x.onnx");
    let message = refused("hugging_face", |model| graph(model, "Erf", "Tanh"));
    assert!(
        message.contains("block 0: MLP: expected the exact (erf) GELU, got the tanh approximation"),
        "{message}"
    );
    let message = refused("hugging_face", |model| graph(model, "Softmax", "Relu"));
    assert!(message.contains("block 0: expected softmax attention"), "{message}");
    let message = refused("hugging_face", |model| graph(model, "Conv", "Gather"));
    assert!(message.contains("embedding: expected patches, CLS and positions"), "{message}");
    let message = refused("hugging_face", |model| {
        for tensor in &mut model.graph.as_mut().unwrap().initializer {
            if tensor.data_type == data_type::FLOAT {
                tensor.data_type = 3;
            }
        }
    });
    assert!(message.contains("expected float weights, got ONNX data type 3"), "{message}");
    let message = refused("hugging_face", |model| model.graph.as_mut().unwrap().node.reverse());
    assert!(message.contains("expected values written before"), "{message}");
}
