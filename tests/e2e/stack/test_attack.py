"""`up` against somebody who reaches its port: without the login, and with it by what a run may say of itself."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.e2e.stack.stacks import project, up


def test_no_run_executes_a_command_of_its_own(tmp_path: Path) -> None:
    evil, owned = tmp_path / "evil", tmp_path / "owned"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text(f"open({str(owned)!r}, 'w').close()\n")
    variables = {
        "command": f"touch {owned}",
        "working_dir": str(evil),
        "env": {"PYTHONPATH": str(evil), "BASH_ENV": str(evil / "x"), "PREFECT_LOGGING_LEVEL": "WARNING"},
        "env.PYTHONPATH": str(evil),
    }
    folder = project(tmp_path / "project")
    with up(folder) as stack:
        deployment = stack.deployment("small")
        asked = f"{stack.api}/deployments/{deployment['id']}/create_flow_run"
        document = {"state": {"type": "SCHEDULED"}, "job_variables": variables, "parameters": {"pipeline": "small"}}
        with httpx.Client(trust_env=False, timeout=30) as client:
            for login in (None, ("leptonflow", "guess")):
                assert client.post(asked, json=document, auth=login).status_code == 401
            for key, value in variables.items():
                one = {**document, "job_variables": {key: value}}
                assert client.post(asked, json=one, auth=stack.login).status_code == 422, key
        # Prefect's server holds the variables of such a run against no template.
        unchecked = {"flow_id": deployment["flow_id"], "deployment_id": deployment["id"], "work_pool_name": "default"}
        run = stack.ask("/flow_runs/", {**document, **unchecked})
        ended = stack.ended(run["id"])
        assert run["job_variables"]["command"] == variables["command"]  # it was asked for
        assert not owned.exists()
        assert ended["name"] == "small-rejected-data", ended  # a retraining, in the deployment's folder, of no data
        told = [path for path in (folder / ".leptonflow").rglob("*.log*") if stack.login[1] in path.read_text()]
        assert told == []
