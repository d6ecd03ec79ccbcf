//! Bytes as safetensors of Hugging Face or timm: read, named, its shape inferred, its tensors converted.
#![no_main]

#[path = "../checkpoint.rs"]
mod checkpoint;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checkpoint::read(bytes, "fuzz.safetensors"));
