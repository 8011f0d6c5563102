"""Gather the packages that an offline machine with a GPU lacks, in the locked versions, without TensorFlow.

    python -m benchmarks.gpu.gather FILE.tar.xz [--present NAMES]

That machine is an x86-64 Linux with Python 3.12, JAX, NumPy, pyarrow, scikit-learn and Pillow, and what those need.
NAMES is a file with the packages that it has beside them, one a line, as `pip list --format=freeze` prints there. Copy
this project and the file to it and run `sh benchmarks/gpu/run FILE.tar.xz`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
PRESENT = ("jax", "numpy", "pyarrow", "scikit-learn", "pillow", "pip")
UNUSED = {"tensorflow", "tokenizers", "onnx", "onnxruntime", "tf2onnx"}  # images alone, on JAX, not served
THERE = {
    "python_version": "3.12", "python_full_version": "3.12.3", "sys_platform": "linux", "platform_machine": "x86_64",
}  # fmt: skip
# The oldest first: pip takes the tags as they are given.
PLATFORMS = [f"manylinux{tag}_x86_64" for tag in ("1", "2010", "2014", *(f"_2_{minor}" for minor in range(5, 36)))]
FOR_IT = [
    "--no-deps", "--no-compile", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp",
    *(f"--platform={each}" for each in PLATFORMS),
]  # fmt: skip
LEFT_OUT = {"./prefect/server/ui", "./prefect/server/ui-v2", "./bin"}  # commands name the Python of here
LIMIT = 45  # MiB


def needed(names: Iterable[str], without: frozenset[str] = frozenset()) -> set[str]:
    """The packages of these names and all that they need there, as the environment here has them installed."""
    found: set[str] = set()
    open_ = [(canonicalize_name(name), "") for name in names]
    done: set[tuple[str, str]] = set()
    while open_:
        name, extra = open_.pop()
        if name in without or (name, extra) in done:
            continue
        done.add((name, extra))
        found.add(name)
        for text in metadata.requires(name) or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({**THERE, "extra": extra}):
                open_ += [(canonicalize_name(need.name), each) for each in ("", *need.extras)]
    return found


def locked(names: set[str]) -> str:
    """Their lines of requirements.lock, hashes and all."""
    entries = re.split(r"(?m)^(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    return "".join(entry for entry in entries if canonicalize_name(re.split("==", entry)[0].strip() or "-") in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.tar.xz")
    parser.add_argument("--present", type=Path, metavar="NAMES", help="names of packages that the machine has")
    given = parser.parse_args()
    told = given.present.read_text(encoding="utf-8").split() if given.present else []
    present = needed(PRESENT) | {canonicalize_name(re.split("[=@]", name)[0]) for name in told}
    names = needed(["leptonflow"], frozenset(present | UNUSED)) - {"leptonflow"}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    with tempfile.TemporaryDirectory() as folder:
        lock, own, site = (Path(folder) / name for name in ("lock.txt", "own", "site"))
        lock.write_text(locked(names), encoding="utf-8")
        subprocess.run([*pip, "install", *FOR_IT, "--require-hashes", "--target", site, "-r", lock], check=True)
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", own, ROOT], check=True)
        subprocess.run([*pip, "install", *FOR_IT, "--no-index", "--target", site, *own.glob("*.whl")], check=True)
        with tarfile.open(given.file, "w:xz") as packed:
            packed.add(site, ".", filter=lambda entry: None if entry.name in LEFT_OUT else entry)
    mib = given.file.stat().st_size / 2**20
    print(f"{given.file}: {len(names) + 1} packages, {mib:.1f} MiB (limit: {LIMIT})")
    if mib > LIMIT:
        raise SystemExit("over the limit: name more of what the machine has in --present")


if __name__ == "__main__":
    main()
