"""ONNX in torch: what gradients need is computed there, all else stays in ONNX Runtime."""
