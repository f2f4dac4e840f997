"""ONNX deployment toolchain: the fastest artefact that is proved to stay within an accuracy budget."""
