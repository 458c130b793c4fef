"""The commands that start a run on other people's machines, filled in; printed, never run.

gcloud's flags are those of its reference (cloud.google.com/sdk/gcloud/reference/compute/tpus, read 2026-11), torchrun's and sbatch's
those of their manuals. None of them was run on such a machine from here.
"""

import re
import shlex

from cngpt.errors import ConfigError
from cngpt.plan.hardware import Hardware
from cngpt.plan.setup import Setup


def commands(kind: str, setup: Setup, hardware: Hardware, words: list[str], name: str) -> str:
    """A shell script, to be read and run step by step. `words`: the overrides of the run; `name`: of run and machine."""
    if kind in ("gcloud", "queued"):
        if not hardware.slice:
            raise ConfigError(f"launch={kind}: starts a TPU slice; hardware={hardware.name} is none, hardware=v4-32 is")
        return tpu(kind, setup, hardware, words, name)
    if hardware.accelerator == "tpu":
        raise ConfigError(f"launch={kind}: starts GPU machines; a TPU slice is started with launch=gcloud or launch=queued")
    return torchrun(setup, words, name) if kind == "torchrun" else slurm(setup, words, name)


def train(words: list[str], name: str) -> str:
    """The training command itself: the same on every host, and the same again to go on."""
    return shlex.join(["python", "run.py", *words, f"name={name}"])


# $BUCKET is not quoted: the shell that starts the hosts fills it in
IN_BUCKET = ("data=shards", "data.root=$BUCKET/shards", "callbacks.checkpoint.folder=$BUCKET/runs/$TPU")


def tpu(kind: str, setup: Setup, hardware: Hardware, words: list[str], name: str) -> str:
    own = [w for w in words if w not in data_words(words) or w.startswith(("experiment", "tokenizer"))]
    run = " ".join([train([w for w in own if not w.startswith(("paths.", "prepare."))], name), *IN_BUCKET])
    if kind == "gcloud":
        create = [
            "# 2. the slice; answers at once, or says that there is none",
            "gcloud compute tpus tpu-vm create $TPU --zone=$ZONE --accelerator-type=$TYPE --version=$IMAGE --spot",
        ]
        delete = ["gcloud compute tpus tpu-vm delete $TPU --zone=$ZONE --quiet"]
    else:
        create = [
            "# 2. the slice; waits in a queue until there is one (state ACTIVE)",
            "gcloud compute tpus queued-resources create $TPU --node-id=$TPU --zone=$ZONE --accelerator-type=$TYPE --runtime-version=$IMAGE --spot",
            "gcloud compute tpus queued-resources describe $TPU --zone=$ZONE --format='value(state.state)'",
        ]
        delete = ["gcloud compute tpus queued-resources delete $TPU --zone=$ZONE --force --quiet"]
    everywhere = "gcloud compute tpus tpu-vm ssh $TPU --zone=$ZONE --worker=all --command"
    zone = hardware.zone or "<zone>   # gcloud compute tpus accelerator-types list --zone=<zone> says where there are any"
    return "\n".join(
        [
            f"# {setup.devices} devices on {setup.hosts} hosts. Not run from here; read it, then run it step by step.",
            f"TPU={name} ZONE={zone}" if hardware.zone else f"TPU={name}; ZONE={zone}",
            f"TYPE={hardware.slice} IMAGE={hardware.version} BUCKET=gs://<bucket>",
            "",
            "# 1. data, once: prepared here, sent to the bucket",
            f"{shlex.join(['python', 'run.py', 'task=prepare', *data_words(words)])} prepare.out=$BUCKET/shards",
            "",
            *create,
            "",
            "# 3. code and packages, on every host",
            "git archive --prefix=cngpt/ -o /tmp/cngpt.tar.gz HEAD",
            "gcloud compute tpus tpu-vm scp /tmp/cngpt.tar.gz $TPU:/tmp/ --zone=$ZONE --worker=all",
            f"{everywhere}='sudo apt-get update -qq && sudo apt-get install -y python3.11-venv && tar xzf /tmp/cngpt.tar.gz"
            " && cd cngpt && python3.11 -m venv .venv && .venv/bin/pip install -e .[tpu] -c constraints-tpu.txt'",
            "",
            "# 4. start: the same command on every host; $BUCKET is filled in here",
            f"{everywhere}={quoted(f'cd cngpt && source .venv/bin/activate && nohup {run} > train.log 2>&1 &')}",
            "",
            "# 5. watch",
            "gcloud compute tpus tpu-vm ssh $TPU --zone=$ZONE --worker=0 --command='tail -n 3 -f cngpt/train.log'",
            "",
            "# 6. preempted: delete what is left, do 2, 3 and 4 again; the same name= goes on from its last checkpoint in the bucket",
            "# 7. stop, and end the bill (a signal first, so that the last step is saved)",
            f"{everywhere}='pkill -INT -f run.py; sleep 120'",
            *delete,
        ]
    )


def quoted(command: str) -> str:
    """One word for the shell, in which $BUCKET and $TPU are still filled in."""
    parts = re.split(r"(\$BUCKET|\$TPU)", command)
    return "".join(f'"{part}"' if part in ("$BUCKET", "$TPU") else shlex.quote(part) if part else "" for part in parts)


def data_words(words: list[str]) -> list[str]:
    """What decides the shards."""
    return [w for w in words if re.match(r"(data|clean|dedup|prepare|tokenizer|experiment)\b", w)]


def torchrun(setup: Setup, words: list[str], name: str) -> str:
    each = setup.devices // setup.hosts
    run = shlex.join(["run.py", *with_devices(words, each, setup.hosts), f"name={name}"])
    return "\n".join(
        [
            f"# on each of the {setup.hosts} hosts, with RANK_OF_HOST=0, 1, ... and HEAD the first one's address; runs/ and data/ on a shared disk",
            f"torchrun --nnodes={setup.hosts} --nproc-per-node={each} --node-rank=$RANK_OF_HOST --master-addr=$HEAD --master-port=29500 {run}",
        ]
    )


def slurm(setup: Setup, words: list[str], name: str) -> str:
    each = setup.devices // setup.hosts
    run = train(with_devices(words, each, setup.hosts), name)
    return "\n".join(
        [
            "#!/bin/bash",
            f"# sbatch this file; the same again goes on. {setup.hosts} hosts x {each} GPUs; runs/ and data/ on a shared disk",
            f"#SBATCH --job-name={name}",
            f"#SBATCH --nodes={setup.hosts}",
            f"#SBATCH --ntasks-per-node={each}",
            f"#SBATCH --gpus-per-node={each}",
            "#SBATCH --cpus-per-task=4",
            "#SBATCH --signal=SIGTERM@120",
            "#SBATCH --requeue",
            "source .venv/bin/activate",
            f"srun {run}",
        ]
    )


def with_devices(words: list[str], each: int, hosts: int) -> list[str]:
    mine = [w for w in words if not w.startswith(("trainer.devices=", "trainer.num_nodes="))]
    return [*mine, f"trainer.devices={each}", f"trainer.num_nodes={hosts}"]
