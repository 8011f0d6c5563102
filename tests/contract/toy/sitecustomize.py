"""One more workload, in every process whose PYTHONPATH begins with this folder: as if it stood in the closed list.

Python imports a module of this name before everything else, in the children of a command too.
"""

from pathlib import Path

from number_sections import SECTIONS

import leptonflow.workloads
from schemas import workloads

leptonflow.workloads.__path__.append(str(Path(__file__).parent / "workloads"))
workloads.SECTIONS["number_regression"] = SECTIONS
