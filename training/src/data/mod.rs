//! Where training images come from: folders, archives, object stores.
