"""The files under docs/clusters, as far as they can be checked without a cluster."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.distributed.run import get_args_parser

from coursekit.models import GPT, GPTConfig

FOLDER = Path(__file__).parents[2] / "docs" / "clusters"
STEPS = 4
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]


def run(*command, cwd=FOLDER, **environ):
    """Run a command with one thread a process, and return what it says."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "WORLD_SIZE", "MASTER_"))}
    environ = clean | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""} | environ
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def losses():
    """The oracle: whole batches in one process, no data parallelism."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=64, max_seq_len=32, d_model=32, n_layers=2, n_heads=2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    result = []
    for _ in range(STEPS):
        tokens = torch.randint(8, (16, 32), generator=generator)
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        result.append(loss.item())
    return result


def check_losses(path, losses):
    # float32, summed in another order; training without averaging is wrong in the third digit.
    assert json.loads(path.read_text()) == pytest.approx(losses, rel=1e-5)


def test_the_script_alone_starts_its_own_processes(tmp_path, losses):
    path = tmp_path / "losses.json"
    said = run(sys.executable, "train.py", "--processes", "2", "--steps", str(STEPS), "--json", str(path))
    assert said.startswith("2 ranks: loss")
    check_losses(path, losses)


@pytest.mark.slow
def test_the_script_under_torchrun_gives_the_same_losses(tmp_path, losses):
    path = tmp_path / "losses.json"
    said = run(
        *TORCHRUN, "--standalone", "--nproc-per-node=2", "train.py",
        "--steps", str(STEPS), "--json", str(path),
    )  # fmt: skip
    assert said.count("2 ranks: loss") == 1
    check_losses(path, losses)


SRUN = """#!/usr/bin/env bash
# Starts a command once a node, as srun does, with every node on this machine.
[ "$1" = --kill-on-bad-exit=1 ] || exit 64
shift
for _ in $(seq "$SLURM_JOB_NUM_NODES"); do "$@" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""


@pytest.mark.slow
def test_the_batch_script_trains_on_two_nodes_of_one_machine(tmp_path, losses):
    programs = {
        "srun": SRUN,
        "scontrol": '#!/usr/bin/env bash\n[ "$2" = hostnames ] && echo localhost && echo elsewhere\n',
        "torchrun": f'#!/usr/bin/env bash\nexec {sys.executable} -m torch.distributed.run "$@"\n',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = tmp_path / "losses.json"
    said = run(
        "bash", "slurm.sbatch", "--steps", str(STEPS), "--json", str(path), "--backend", "gloo",
        PATH=f"{tmp_path}:{os.environ['PATH']}", PORT=str(free_port()), GLOO_SOCKET_IFNAME="lo",
        SLURM_JOB_ID="7", SLURM_JOB_NUM_NODES="2", SLURM_GPUS_ON_NODE="1", SLURM_JOB_NODELIST="node[1-2]",
        MAX_RESTARTS="0",
    )  # fmt: skip
    assert said.count("2 ranks: loss") == 1
    check_losses(path, losses)


def kubernetes():
    return {
        document["kind"]: document
        for document in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    }


def torchrun_arguments(container):
    index = container["args"].index("train.py")
    given = [argument.replace("$(JOB_COMPLETION_INDEX)", "3") for argument in container["args"]]
    return get_args_parser().parse_args([*given[:index], "train.py"])


def test_the_kubernetes_file_fits_the_schema():
    import kubernetes_validate

    for document in kubernetes().values():
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_schema_refuses_an_unknown_field():
    import kubernetes_validate

    job = kubernetes()["Job"]
    job["spec"]["completionmode"] = job["spec"].pop("completionMode")
    with pytest.raises(kubernetes_validate.ValidationError, match="completionmode"):
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_the_jobs_numbers_and_names_are_those_that_torchrun_is_told():
    service, job = kubernetes()["Service"], kubernetes()["Job"]
    pod = job["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    told = torchrun_arguments(container)
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(told.nnodes)
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(told.nproc_per_node)
    assert told.node_rank == 3
    # A pod of an indexed Job is called <job>-<index>; its address is <pod>.<subdomain>.
    name, port = job["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert told.rdzv_endpoint == f"{name}-0.{service['metadata']['name']}:{port}"
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
