"""A residual network (He et al. 2016, "Deep Residual Learning for Image Recognition"), for 32 x 32 to 224 x 224.

`filters` are those of its stages, each of `blocks` basic blocks: [16, 32, 64] with 3 blocks is the paper's ResNet-20
for 32 x 32, [64, 128, 256, 512] with 2 blocks its ResNet-18; their shortcuts are those of ResNet-D (He et al. 2019,
"Bag of Tricks for Image Classification").
"""

from __future__ import annotations

from typing import Any

from schemas.image_classification import ImageModel

LARGE = 96  # from this side on the stem takes a quarter of it, as the paper's networks for 224 x 224 do


def step_bytes(model: ImageModel, shape: tuple[int, int, int], batch: int) -> int:
    """The bytes of one step at least: what the stem's convolution and the first stage's give."""
    stem = batch * shape[0] * shape[1] * model.filters[0]
    if min(shape[:2]) < LARGE:
        return 4 * stem * (1 + 2 * model.blocks)
    return 4 * (stem // 4 + 2 * model.blocks * stem // 16)


def build(model: ImageModel, shape: tuple[int, int, int], classes: int) -> Any:
    """An uncompiled keras.Model: uint8 (N, H, W, C) with values 0..255 -> (N, classes) probabilities."""
    from leptonflow.keras_runtime.keras_models import keras

    layers = keras().layers
    image = layers.Input(shape, dtype="uint8", name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(image)  # (N, H, W, C) float32 in -1..1
    large = min(shape[:2]) >= LARGE
    x = _convolution(layers, x, model.filters[0], 7 if large else 3, 2 if large else 1, "stem")
    x = layers.Activation("relu", name="stem_relu")(x)
    if large:
        x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, filters in enumerate(model.filters, start=1):
        for block in range(1, model.blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(layers, x, filters, stride, f"stage_{stage}_block_{block}")
    x = layers.GlobalAveragePooling2D(name="average")(x)  # (N, filters[-1])
    if model.dropout > 0:
        x = layers.Dropout(model.dropout, name="dropout")(x)
    return keras().Model(image, layers.Dense(classes, activation="softmax", name="probabilities")(x), name="resnet")


def _block(layers: Any, x: Any, filters: int, stride: int, name: str) -> Any:
    """Two 3x3 convolutions and their input added: (N, h, w, c) -> (N, h / stride, w / stride, filters).

    The scale of the second normalisation starts at 0, so that a block starts as the identity (Goyal et al. 2017).
    """
    shortcut = x
    if stride > 1:  # averaged before the 1x1 convolution, which would drop three of four values (He et al. 2019)
        # It would also write beyond its memory: TensorFlow 2.21's oneDNN, gradient of 1x1 with strides on few channels.
        shortcut = layers.AveragePooling2D(stride, padding="same", name=f"{name}_pool")(shortcut)
    if x.shape[-1] != filters:
        shortcut = _convolution(layers, shortcut, filters, 1, 1, f"{name}_shortcut")
    x = _convolution(layers, x, filters, 3, stride, f"{name}_1")
    x = layers.Activation("relu", name=f"{name}_relu")(x)
    x = _convolution(layers, x, filters, 3, 1, f"{name}_2", scale="zeros")
    return layers.Activation("relu", name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _convolution(layers: Any, x: Any, filters: int, size: int, stride: int, name: str, scale: str = "ones") -> Any:
    """A convolution and its normalisation: (N, h, w, c) -> (N, h / stride, w / stride, filters)."""
    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    return layers.BatchNormalization(momentum=0.9, gamma_initializer=scale, name=f"{name}_norm")(x)
