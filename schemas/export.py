"""The record of a model's export to the ONNX format, in its package."""

from __future__ import annotations

from schemas.records import Record


class Export(Record):
    """onnx.json of a package: its model.onnx, or the reason why there is none.

    difference  the largest one from what Keras predicted of the reference examples
    latency_ms  95 of 100 single predictions take at most this long
    features    numbers that the model's last layer gets of one example; null where that is no row
    """

    sha256: str | None = None
    bytes: int | None = None
    difference: float | None = None
    latency_ms: float | None = None
    features: int | None = None
    reason: str | None = None
