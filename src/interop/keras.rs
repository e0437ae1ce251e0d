//! Keras's weight layouts.
