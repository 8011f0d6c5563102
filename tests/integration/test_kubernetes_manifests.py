"""deployments/kubernetes/: schemas, rights, resources, references, and the template that a flow run's Job is made of.

No cluster is here: what Kubernetes itself would say is asked of its OpenAPI schemas (kubernetes_validate), of kustomize
and of Prefect's integration where they are there; each is skipped with its reason where it is not.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import uuid

import pytest
import yaml

from tests.compose import ROOT
from tests.deployments import KUBERNETES, containers, job, manifest, manifests, pods, services, template

GPU = "nvidia.com/gpu"
VERSIONS = ("1.30.0", "1.34.0")  # of Kubernetes


def test_kustomize_builds_it() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no `kubectl` here")
    done = subprocess.run(["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    wanted = {(d["kind"], d["metadata"]["name"]) for d in manifests() if d["kind"] != "Secret"}
    assert {(d["kind"], d["metadata"]["name"]) for d in built} == wanted | {("ConfigMap", "base-job-template")}
    assert {d["metadata"].get("namespace") for d in built if d["kind"] != "Namespace"} == {"leptonflow"}
    assert len(set(re.findall(r"image: (\S+)", done.stdout))) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_the_manifests(version: str) -> None:
    """Its own OpenAPI schemas, with no key that they do not know."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here")
    run = job()
    run["spec"]["template"]["spec"]["containers"][0].update(args=["prefect"], env=[])  # as the worker writes them
    run["metadata"].pop("annotations", None)
    for document in (*manifests(), run):
        kubernetes_validate.validate(document, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**run, "spec": {**run["spec"], "bakcoffLimit": 1}}, version, strict=True)


def test_every_container_has_requests_and_limits() -> None:
    for name, container in containers():
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), name
        assert {"cpu", "memory"} <= set(resources["limits"]), name


def test_a_gpu_is_for_training_alone() -> None:
    """A run has one by default, and none where its deployment says so; nothing else may have any."""
    with_gpu = {name for name, container in containers() if GPU in container["resources"]["limits"]}
    assert with_gpu == {"run/prefect-job"}
    for amount in ("1", "0", "2"):
        resources = job(gpus=amount)["spec"]["template"]["spec"]["containers"][0]["resources"]
        assert resources["limits"][GPU] == resources["requests"][GPU] == amount
    image = template()["variables"]["properties"]["image"]["default"]
    assert image.endswith("-gpu")


def test_every_pod_runs_as_nobody_in_particular_on_a_read_only_root() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == 10001, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for volume in pod["volumes"]:
            assert "persistentVolumeClaim" not in volume and "hostPath" not in volume
        if name != "worker":  # it alone speaks to Kubernetes
            assert pod["automountServiceAccountToken"] is False, name
    for name, container in containers():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name


def test_what_a_manifest_refers_to_is_there() -> None:
    """ConfigMaps, Secrets and their keys, service accounts, the Service that clients are told of."""
    there = {(d["kind"], d["metadata"]["name"]) for d in manifests()} | {("ConfigMap", "base-job-template")}
    keys = {d["metadata"]["name"]: d["stringData"] for d in manifests() if d["kind"] == "Secret"}
    for _, container in containers():
        for source in container.get("envFrom", []):
            ((kind, named),) = source.items()
            assert ({"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], named["name"]) in there
        for each in container.get("env") or []:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            assert reference is None or reference["key"] in keys[reference["name"]]
    for _, pod in pods():
        assert pod.get("serviceAccountName") is None or ("ServiceAccount", pod["serviceAccountName"]) in there
    assert manifest("ConfigMap", "leptonflow-client")["data"]["PREFECT_API_URL"] == "http://prefect-server:4200/api"
    assert ("Service", "prefect-server") in there


def test_nobody_connects_to_a_pod_but_whom_a_policy_names() -> None:
    """All ingress is denied, and each client of the API is let in by the label that its pods have."""
    policies = {d["metadata"]["name"]: d["spec"] for d in manifests() if d["kind"] == "NetworkPolicy"}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    for spec in policies.values():
        assert spec["policyTypes"] == ["Ingress"]  # what a pod reaches is left open
    server = policies["prefect-server"]
    assert server["podSelector"] == {"matchLabels": {"app": "prefect-server"}}
    (rule,) = server["ingress"]
    (allowed,) = rule["from"][0]["podSelector"]["matchExpressions"]
    labels = {d["spec"]["template"]["metadata"]["labels"]["app"] for d in manifests() if d["kind"] == "Deployment"}
    labels.add(job()["spec"]["template"]["metadata"]["labels"]["app"])
    assert (allowed["key"], allowed["operator"]) == ("app", "In")
    assert set(allowed["values"]) == labels - {"prefect-server", "serve", "board"}
    (port,) = rule["ports"]
    ports = {name: c.get("ports", []) for name, c in containers()}
    assert port["port"] in {each["name"] for each in ports["prefect-server/server"]}
    (rule,) = policies["serve"]["ingress"]
    assert [each["port"] for each in rule["ports"]] == [each["name"] for each in ports["serve/serve"]] == ["http"]
    assert policies["watcher"]["podSelector"] == {"matchLabels": {"app": "watcher"}}


def test_the_job_template_is_prefects_with_more() -> None:
    """Every variable of the integration's own template is there, and every placeholder is a variable."""
    read = template()
    assert set(read) == {"variables", "job_configuration"}
    known = set(read["variables"]["properties"])
    placeholders = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(read["job_configuration"])))
    assert placeholders <= known
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="no prefect-kubernetes here: the extra `team`")
    theirs = worker.KubernetesWorker.get_default_base_job_template()
    assert known - set(theirs["variables"]["properties"]) == {"gpus", "scratch"}
    assert set(theirs["variables"]["properties"]) <= known
    assert set(theirs["job_configuration"]) == set(read["job_configuration"])
    assert theirs["variables"]["definitions"] == read["variables"]["definitions"]


def test_the_worker_makes_a_job_of_the_template() -> None:
    """Prefect's own worker fills it in for a flow run, and Kubernetes takes what comes of it."""
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="no prefect-kubernetes here: the extra `team`")
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="no kubernetes-validate here")
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    given = {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}, "gpus": "0", "image": "leptonflow:cpu"}
    making = worker.KubernetesWorkerJobConfiguration.from_template_and_values(
        base_job_template=template(),
        values=given,
        client=PrefectClient("http://127.0.0.1:1/api"),  # asked for blocks alone, and there are none
    )
    configuration = asyncio.run(making)
    configuration.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="digits"))
    made = configuration.job_manifest
    for schemas in VERSIONS:
        kubernetes_validate.validate(made, schemas, strict=True)
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == ["prefect", "flow-run", "execute"]
    assert container["image"] == "leptonflow:cpu"
    assert container["resources"]["limits"][GPU] == "0"
    assert {"name": "PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "value": "30"} in container["env"]


def test_prefect_yaml_names_the_pools_that_are_here() -> None:
    """Its anchors: the worker of compose.yaml serves `process`, the one of kubernetes/ serves `kubernetes`."""
    pools = yaml.safe_load((ROOT / "prefect.yaml").read_text())["definitions"]["work_pools"]
    assert services()["worker"]["healthcheck"]["test"][-1] == pools["process"]["name"]
    worker = next(each for name, each in containers() if name == "worker/worker")
    assert f"--pool={pools['kubernetes']['name']}" in worker["command"]
    assert "--type=kubernetes" in worker["command"]
