"""The same model behind LitServe and BentoML, each as its documentation writes such a server.

Written into a folder and run by an environment that the benchmark makes: nothing of it is a dependency of the project.
Both take {"examples": ["<base64 of an image>"]}, as `POST /v1/P/predict` does, one example a request.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PACKAGES = ("litserve==0.2.19", "bentoml==1.4.40")

MODEL = """
import base64, io, json, os
import numpy as np
from PIL import Image

SHAPE, CLASSES = json.loads(os.environ["SHAPE"]), json.loads(os.environ["CLASSES"])

def decode(text):
    image = Image.open(io.BytesIO(base64.b64decode(text))).convert("L" if SHAPE[2] == 1 else "RGB")
    if image.size != (SHAPE[1], SHAPE[0]):
        image = image.resize((SHAPE[1], SHAPE[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(SHAPE)

def in_onnx():
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["THREADS"])
    session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]

def in_keras():
    import keras
    model = keras.saving.load_model(os.environ["MODEL"], compile=False)
    return lambda batch: np.asarray(model.predict_on_batch(batch))

def loaded():
    return in_keras() if os.environ["MODEL"].endswith(".keras") else in_onnx()

def answer(row):
    best = int(row.argmax())
    named = dict(zip(CLASSES, map(float, row)))
    return {"label": CLASSES[best], "probability": float(row[best]), "probabilities": named}
"""

LITSERVE = """
import sys
import litserve
import numpy as np
from model import answer, decode, loaded

class Served(litserve.LitAPI):
    def setup(self, device):
        self.model = loaded()

    def decode_request(self, request):
        return decode(request["examples"][0])

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, batch):
        return self.model(batch)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, row):
        return answer(row)

if __name__ == "__main__":
    api = Served(max_batch_size=32, batch_timeout=0.002)
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False, num_api_servers=1)
"""

BENTOML = """
import bentoml
import numpy as np
from model import answer, decode, loaded

@bentoml.service(workers=1)
class Served:
    def __init__(self):
        self.model = loaded()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict(self, examples: list[str]) -> list[dict]:
        return [answer(row) for row in self.model(np.stack([decode(each) for each in examples]))]
"""


def environment(folder: Path) -> Path:
    """The Python of an environment with PACKAGES, made once; what else they need is the project's own."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        (folder / ".installed").touch()
    # After their own packages: the model's runtimes, in the versions that the project runs.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    link = folder / "lib" / version / "site-packages" / "project.pth"
    link.write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def command(kind: str, python: Path, folder: Path, port: int) -> list[str]:
    """What starts the server; its files are written into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "model.py").write_text(MODEL)
    (folder / "litserve_server.py").write_text(LITSERVE)
    (folder / "bentoml_server.py").write_text(BENTOML)
    if kind == "litserve":
        return [str(python), "litserve_server.py", str(port)]
    return [
        str(python), "-m", "bentoml", "serve", "bentoml_server:Served", "--port", str(port), "--host", "127.0.0.1",
        "--api-workers", "1",
    ]  # fmt: skip


def variables(model: Path, shape: str, classes: str, threads: int) -> dict[str, str]:
    """The environment of such a server."""
    quiet = {"BENTOML_DO_NOT_TRACK": "true", "DO_NOT_TRACK": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**os.environ, **quiet, "MODEL": str(model), "SHAPE": shape, "CLASSES": classes, "THREADS": str(threads)}
