"""What a practitioner writes in one file: no store, no pipeline, no gate. The other side of overhead.py.

    python benchmarks/plain_keras.py IMAGES MODEL.keras [EPOCHS] [FOLDS]

Decodes a folder per class, holds out a fifth, fits the classic small CNN on stratified folds and then on all
training data, scores with scikit-learn, saves, and loads the saved model in a fresh process to predict the holdout.
"""

import json
import subprocess
import sys
from pathlib import Path

# TensorFlow imports JAX where it is installed, as it is here for one test: not what a plain script pays for.
sys.modules["jax"] = None

RELOAD = """
import sys; sys.modules["jax"] = None
import numpy, keras
keras.models.load_model(sys.argv[1]).predict(numpy.load(sys.argv[2]), batch_size=256, verbose=0)
"""


def main(images, file, epochs=2, folds=3):
    import keras
    import numpy as np
    from PIL import Image
    from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support
    from sklearn.model_selection import StratifiedKFold, train_test_split

    classes = sorted(folder.name for folder in Path(images).iterdir())
    files = [(path, number) for number, name in enumerate(classes) for path in sorted((Path(images) / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])  # (N, 32, 32, 3)
    labels = np.array([number for _, number in files])
    one_hot = keras.utils.to_categorical(labels, len(classes))
    train, held = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)

    def build():
        model = keras.Sequential(
            [
                keras.layers.Input(pixels.shape[1:]),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Conv2D(32, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Conv2D(64, 3, activation="relu"),
                keras.layers.MaxPooling2D(2),
                keras.layers.Conv2D(64, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu"),
                keras.layers.Dense(len(classes), activation="softmax"),
            ]
        )
        model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
        return model

    def score(model, rows):
        probabilities = model.predict(pixels[rows], batch_size=256, verbose=0)
        predicted = probabilities.argmax(axis=1)
        precision, recall, f1, _ = precision_recall_fscore_support(
            labels[rows], predicted, average="macro", zero_division=0
        )
        return {
            "accuracy": float(accuracy_score(labels[rows], predicted)),
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "log_loss": float(log_loss(labels[rows], probabilities, labels=range(len(classes)))),
            "confusion": confusion_matrix(labels[rows], predicted).tolist(),
        }

    scores = []
    for inside, outside in StratifiedKFold(folds, shuffle=True, random_state=0).split(train, labels[train]):
        keras.utils.set_random_seed(0)
        model = build()
        model.fit(
            pixels[train[inside]],
            one_hot[train[inside]],
            validation_data=(pixels[train[outside]], one_hot[train[outside]]),
            epochs=epochs,
            batch_size=32,
            verbose=0,
        )
        scores.append(score(model, train[outside]))
        keras.backend.clear_session()

    keras.utils.set_random_seed(0)
    model = build()
    model.fit(pixels[train], one_hot[train], epochs=epochs, batch_size=32, verbose=0)
    holdout = score(model, held)
    model.save(file)
    sample = Path(file).with_suffix(".npy")
    np.save(sample, pixels[held])
    subprocess.run([sys.executable, "-c", RELOAD, file, sample], check=True)
    accuracies = [fold["accuracy"] for fold in scores]
    print(json.dumps({"cv": float(np.mean(accuracies)), "folds": accuracies, "holdout": holdout["accuracy"]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(value) for value in sys.argv[3:]))
