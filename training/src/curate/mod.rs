//! Chooses images to train on.
