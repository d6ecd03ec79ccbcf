//! Judges models: nearest neighbours, linear probes, fidelity, robustness, label propagation.
