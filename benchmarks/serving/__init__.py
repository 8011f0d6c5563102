"""Serving: `leptonflow serve` beside LitServe and BentoML, with the very same ONNX session and the very same client."""
