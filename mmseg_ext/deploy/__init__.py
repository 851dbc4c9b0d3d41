"""A trained network as a file, and as a function of images: PyTorch, ONNX Runtime, OpenVINO, TensorRT."""
