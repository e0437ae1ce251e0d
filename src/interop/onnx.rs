//! ONNX's weight layouts.
