"""Model → Engine: one file a runtime. Nothing here loads onnx, so that a child process starts fast."""
