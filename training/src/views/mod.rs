//! What the networks see of an image: crops, flips, colours, mixtures.
