//! What a run tells while it goes on: JSONL, TensorBoard events, pictures.
