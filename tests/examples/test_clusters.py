"""The job files for Slurm and Kubernetes: what they run, and that they are of the schedulers' form."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

jsonschema = pytest.importorskip("jsonschema")

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOT = EXAMPLES.parent
TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}


def record(required, **properties):
    """A JSON schema of an object with these entries and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


CONTAINER = record(
    "name image command args resources volumeMounts",
    name=TEXT,
    image=TEXT,
    workingDir=TEXT,
    command={"type": "array", "items": TEXT},
    args={"type": "array", "items": TEXT},
    ports={"type": "array", "items": record("name containerPort", name=TEXT, containerPort=COUNT)},
    resources=record("limits", limits={"type": "object", "required": ["nvidia.com/gpu"]}),
    volumeMounts={
        "type": "array",
        "items": record("name mountPath", name=TEXT, mountPath=TEXT, readOnly={"type": "boolean"}),
    },
)
VOLUME = record(
    "name",
    name=TEXT,
    persistentVolumeClaim=record("claimName", claimName=TEXT),
    emptyDir=record("", medium={"const": "Memory"}, sizeLimit=TEXT),
)
POD = record(
    "containers",
    restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
    terminationGracePeriodSeconds=COUNT,
    containers={"type": "array", "items": CONTAINER, "minItems": 1},
    volumes={"type": "array", "items": VOLUME},
)
TEMPLATE = record("spec", spec=POD)


def job(version, spec):
    return record(
        "apiVersion kind metadata spec",
        apiVersion={"const": version},
        kind={"const": "PaddleJob"},
        metadata=record("name", name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}),
        spec=spec,
    )


# Of the two operators' custom resource definitions, what these files use.
SCHEMAS = {
    "paddlejob.yaml": job(
        "batch.paddlepaddle.org/v1",
        record(
            "worker",
            cleanPodPolicy={"enum": ["Always", "Never", "OnFailure", "OnCompletion"]},
            withGloo={"enum": [0, 1, 2]},
            worker=record("replicas template", replicas=COUNT, template=TEMPLATE),
        ),
    ),
    "paddlejob_kubeflow.yaml": job(
        "kubeflow.org/v1",
        record(
            "paddleReplicaSpecs",
            runPolicy=record("", cleanPodPolicy={"enum": ["All", "Running", "None"]}, backoffLimit=COUNT),
            paddleReplicaSpecs=record(
                "Worker",
                Worker=record(
                    "replicas template",
                    replicas=COUNT,
                    restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
                    template=TEMPLATE,
                ),
            ),
        ),
    ),
}


def pod(name, document):
    spec = document["spec"]
    worker = spec["worker"] if name == "paddlejob.yaml" else spec["paddleReplicaSpecs"]["Worker"]
    return worker["template"]["spec"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_job_for_kubernetes_is_of_its_operators_form(name):
    document = yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMAS[name])
    spec = pod(name, document)
    (container,) = spec["containers"]
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in spec["volumes"]}
    call = container["command"] + container["args"]
    assert call[:4] == ["python", "-m", "paddle.distributed.launch", "train_paddle.py"]
    assert "--resume=auto" in call
    (settings,) = (part[len("--cfg=") :] for part in call if part.startswith("--cfg="))
    assert (ROOT / settings).is_file()
    if name == "paddlejob_kubeflow.yaml":
        assert container["name"] == "paddle"  # the operator finds the container and its port by these
        assert container["ports"][0]["name"] == "master"


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("misspelt", ["replica", "volumeMount"])
def test_a_misspelt_entry_is_seen(name, misspelt):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    document = yaml.safe_load(re.sub(rf"\b{misspelt}s:", f"{misspelt}:", text))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMAS[name])


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_slurm_job_starts_a_launcher_on_each_machine(tmp_path):
    (tmp_path / "scontrol").write_text("#!/bin/sh\nprintf 'one\\ntwo\\n'\n")
    # in place of Slurm: the first call asks the first machine for its address, the second starts the job
    (tmp_path / "srun").write_text(
        '#!/bin/bash\ncase "$*" in *--nodelist*) echo "$*" > "$CALLS/asked"; echo 10.0.0.1;; '
        '*) shift; SLURM_NODEID=1 "$@";; esac\n'
    )
    (tmp_path / "python").write_text('#!/bin/bash\nprintf "%q " python "$@"\n')
    for name in ("scontrol", "srun", "python"):
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "x", "SLURM_JOB_ID": "4711", "SLURM_JOB_NUM_NODES": "2"}
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path)}
    done = subprocess.run(
        ["bash", str(EXAMPLES / "slurm.sh"), "--cfg", "my settings.yaml"],
        env={**os.environ, **job, **paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--nodelist=one" in (tmp_path / "asked").read_text()
    call = shlex.split(done.stdout)
    assert call[:3] == ["python", "-m", "paddle.distributed.launch"]
    options = dict(zip(call[3:11:2], call[4:11:2]))
    assert options == {
        "--nnodes": "2",
        "--master": "10.0.0.1:24711",
        "--job_id": "4711",
        "--log_dir": "slurm-logs/4711/1",
    }
    assert call[11:] == ["train_paddle.py", "--resume", "auto", "--cfg", "my settings.yaml"]


def test_slurms_options_are_ones_that_sbatch_knows():
    known = {
        "job-name",
        "nodes",
        "ntasks-per-node",
        "gpus-per-node",
        "cpus-per-task",
        "time",
        "signal",
        "requeue",
        "open-mode",
        "output",
    }
    text = (EXAMPLES / "slurm.sh").read_text(encoding="utf-8")
    options = re.findall(r"^#SBATCH --([a-z-]+)", text, re.M)
    assert set(options) == known and len(options) == text.count("#SBATCH")
    assert text.index("set -euo") > text.rindex("#SBATCH")  # sbatch reads none after the first command
