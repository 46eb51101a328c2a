"""Other programs' formats: ONNX graphs, torch files, sequifier's names."""
