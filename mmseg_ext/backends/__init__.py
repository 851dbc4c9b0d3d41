"""Ways to run a network: PyTorch, ONNX Runtime, OpenVINO, TensorRT."""
