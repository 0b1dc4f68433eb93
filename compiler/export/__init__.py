"""Programs as files: the step, the forward and the updates in ONNX, and programs of torch.export."""
