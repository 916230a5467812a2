"""Manifests: what Kubernetes itself would refuse, and that the parts fit together."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rec_engine import cli, cli_store
from rec_engine.serving.security import needed_scope
from rec_engine.utils.config import ServingConfig, load_config

K8S = Path(__file__).parents[2] / "k8s"
JOBS = [K8S / "first-model.yaml", K8S / "migrate.yaml"]
RAY_JOB = K8S / "ray-training.yaml"
MANIFESTS = sorted(path for path in (K8S / "base").glob("*.yaml") if path.name != "kustomization.yaml")


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", [*MANIFESTS, *JOBS], ids=lambda path: path.name)
def test_a_manifest_is_valid(path: Path) -> None:
    kubernetes_validate.validate(read(path), "1.33", strict=True)


def test_the_ray_job_has_what_its_definition_requires_and_pods_that_are_valid() -> None:
    # Kubernetes does not know it: the fields are those that KubeRay's definition of ray.io/v1 RayJob requires.
    job = read(RAY_JOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    head, [workers] = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert workers.keys() >= {"groupName", "minReplicas", "maxReplicas", "template"}
    for number, group in enumerate((head, workers)):
        # Ray's own options are texts, numbers too.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod-{number}"},
            "spec": group["template"]["spec"],
        }
        kubernetes_validate.validate(pod, "1.33", strict=True)


def test_the_ray_job_asks_for_the_workers_that_there_are_in_the_version_that_is_pinned() -> None:
    spec = read(RAY_JOB)["spec"]
    [workers] = spec["rayClusterSpec"]["workerGroupSpecs"]
    command, _, flags = spec["entrypoint"].partition(" train ")
    assert command == "rec-engine"
    assert f"--engine ray --workers {workers['replicas'] * int(workers['rayStartParams']['num-cpus'])} " in flags
    constraints = (K8S.parent / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nray=={spec['rayClusterSpec']['rayVersion']}\n" in constraints


def test_every_manifest_is_listed() -> None:
    assert sorted(read(K8S / "base" / "kustomization.yaml")["resources"]) == [path.name for path in MANIFESTS]


@pytest.mark.parametrize("path", sorted(K8S.glob("overlays/*/kustomization.yaml")), ids=lambda path: path.parent.name)
def test_an_overlay_changes_what_there_is(path: Path) -> None:
    overlay = read(path)
    there = {(each["kind"], each["metadata"]["name"]): each for each in map(read, MANIFESTS)}
    assert [(path.parent / each).resolve() for each in overlay["resources"]] == [K8S / "base"]
    for patch in overlay["patches"]:
        target = there[patch["target"]["kind"], patch["target"]["name"]]
        operations = yaml.safe_load(patch["patch"])
        if isinstance(operations, dict):
            assert operations["$patch"] == "delete"
            continue
        for operation in operations:
            place: Any = target
            for step in operation["path"].strip("/").removesuffix("/-").split("/"):
                place = place[int(step)] if isinstance(place, list) else place[step]


def test_probes_ask_for_routes_that_there_are_and_the_service_finds_its_pods() -> None:
    deployment, service = read(K8S / "base" / "deployment.yaml"), read(K8S / "base" / "service.yaml")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert needed_scope("GET", container[probe]["httpGet"]["path"]) is None
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (service["spec"]["selector"], deployment["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()


def test_pods_run_without_rights_and_take_secrets_by_reference() -> None:
    deployment, training = read(K8S / "base" / "deployment.yaml"), read(K8S / "base" / "training.yaml")
    ray = read(RAY_JOB)["spec"]["rayClusterSpec"]
    pods = (
        deployment["spec"]["template"]["spec"],
        training["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        ray["headGroupSpec"]["template"]["spec"],
        ray["workerGroupSpecs"][0]["template"]["spec"],
    )
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            for variable in container["env"]:
                if "PASSWORD" in variable["name"]:
                    assert "value" not in variable


def test_the_migration_reads_the_settings_of_the_service() -> None:
    pod = read(K8S / "migrate.yaml")["spec"]["template"]["spec"]
    deployment = read(K8S / "base" / "deployment.yaml")["spec"]["template"]["spec"]
    [container], [served] = pod["containers"], deployment["containers"]
    assert cli.app.parse_args(container["args"], exit_on_error=False, print_error=False)[0] is cli_store.migrate
    assert container["args"][-1] == served["args"][served["args"].index("--config") + 1]
    for name in ("volumeMounts", "env"):
        assert container[name][0] in served[name]
    assert pod["volumes"][0] in deployment["volumes"]


def test_the_settings_are_settings_and_the_image_leaves_them_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "serving_config.yaml"
    path.write_text(read(K8S / "base" / "config.yaml")["data"]["serving_config.yaml"], encoding="utf-8")
    dockerfile = (K8S.parent / "docker" / "Dockerfile").read_text(encoding="utf-8")
    of_image = dict(re.findall(r"(REC_ENGINE_\w+)=(\S+)", dockerfile))
    assert of_image
    settings = load_config(ServingConfig, path, environment=of_image)
    assert settings == load_config(ServingConfig, path, environment={})
    assert settings.store.url.startswith("postgresql://")
    [container] = read(K8S / "base" / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [settings.api.port]
