"""The stages on datatrove's executors: the bytes are ours, whoever did the work."""

import json
import os
import stat
import sys

import pytest

from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.settings import Prepare
from cngpt.corpus.stages import Tokenizing
from cngpt.errors import ConfigError, UserError
from tests.corpus.test_prepare import bytes_of, corpus, run, small_units

pytest.importorskip("datatrove", reason="datatrove is not installed: pip install -e '.[datatrove]'")

SLURM = {"partition": "cpu", "tasks": 3, "memory_gb": 3, "time": "01:30:00", "qos": None, "setup": None}
DEDUP = Dedup(lines=50)


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Several units, and what one process of ours makes of them in tmp_path/ours."""
    small_units(monkeypatch)
    sources = corpus(tmp_path / "in", 600)
    run(sources, tmp_path / "ours", dedup=DEDUP)
    return sources


@pytest.mark.parametrize("processes", [1, 2])
def test_datatrove_gives_our_bytes(tmp_path, sources, processes):
    report = run(sources, tmp_path / "theirs", dedup=DEDUP, engine="datatrove", processes=processes)
    assert bytes_of(tmp_path / "theirs") == bytes_of(tmp_path / "ours")
    assert bytes_of(tmp_path / "theirs-texts").keys() == bytes_of(tmp_path / "ours-texts").keys()
    assert report["engine"] == "datatrove"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "ours", "ours-texts", "theirs", "theirs-texts"]


def test_a_stage_that_stopped_half_way_is_gone_on_with_by_any_engine(tmp_path, sources, monkeypatch):
    whole, inodes = Tokenizing.__call__, []
    first = tmp_path / "theirs.work/tokens/00000"

    def stops(self, number, progress):
        if number == 2:
            raise UserError("stopped here")
        whole(self, number, progress)

    def watched(self, number, progress):
        inodes.append(first.stat().st_ino)
        whole(self, number, progress)

    monkeypatch.setattr(Tokenizing, "__call__", stops)
    with pytest.raises(UserError, match="stopped here"):
        run(sources, tmp_path / "theirs", dedup=DEDUP, engine="datatrove")
    begun = first.stat().st_ino
    monkeypatch.setattr(Tokenizing, "__call__", watched)
    run(sources, tmp_path / "theirs", dedup=DEDUP, engine="local")
    assert set(inodes) == {begun}  # what was done is not done again
    assert bytes_of(tmp_path / "theirs") == bytes_of(tmp_path / "ours")


def test_a_task_that_did_nothing_is_noticed(tmp_path, sources, monkeypatch):
    monkeypatch.setattr("cngpt.corpus.executors.Local.run", lambda self: None)
    with pytest.raises(UserError, match=r"units were not done; .*engine/Reading says why"):
        run(sources, tmp_path / "theirs", engine="datatrove")


def test_without_slurm_the_script_is_written_and_one_line_says_so(tmp_path, sources, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"prepare\.engine=datatrove_slurm: there is no sbatch here; .*launch_script\.slurm"
    ) as error:
        run(sources, tmp_path / "theirs", engine="datatrove_slurm", slurm=SLURM)
    assert "\n" not in str(error.value)
    folder = tmp_path / "theirs-texts.work/engine/Reading"
    script = (folder / "launch_script.slurm").read_text()
    for line in "partition=cpu", "time=01:30:00", "mem-per-cpu=3G", "cpus-per-task=1", "array=0-2", "job-name=cngpt-reading":
        assert f"#SBATCH --{line}\n" in script
    assert "qos" not in script
    assert f"launch_pickled_pipeline {folder / 'executor.pik'}" in script
    assert f"source {sys.prefix}/bin/activate" in script or sys.prefix == sys.base_prefix
    assert json.loads((folder / "ranks_to_run.json").read_text()) == [0, 1, 2]
    setup = {**SLURM, "setup": "module load python"}
    with pytest.raises(UserError):
        run(sources, tmp_path / "theirs", engine="datatrove_slurm", slurm=setup)
    script = (folder / "launch_script.slurm").read_text()
    assert "module load python" in script and "activate" not in script


STANDS_IN = {
    # an array job, one task after another, in the foreground; a job without an array (the merging of statistics) does nothing
    "sbatch": """script="${@: -1}"
last=$(sed -n 's/^#SBATCH --array=0-//p' "$script"); echo "$@" >> "$LOG"
if grep -q launch_pickled "$script"; then
  for i in $(seq 0 "$last"); do SLURM_ARRAY_TASK_ID=$i SLURM_NODELIST=here bash "$script" >> "$LOG" 2>&1; done
fi
echo "Submitted batch job 7" """,
    "srun": 'while [ "${1#-}" != "$1" ] || [ "$1" = 1 ]; do shift; done; exec "$@"',
    "squeue": "echo slurm_load_jobs error: Invalid job id specified >&2; exit 1",
    "scontrol": "echo here",
}


def test_on_a_slurm_played_by_stand_ins_the_three_stages_follow_one_another(tmp_path, sources, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name, body in STANDS_IN.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setattr("cngpt.corpus.executors.POLL_SLURM", 0.01)
    run(sources, tmp_path / "theirs", dedup=DEDUP, engine="datatrove_slurm", slurm={**SLURM, "tasks": 2})
    log = (tmp_path / "log").read_text()
    assert log.count("Processing done for rank=") == 6  # three stages of two tasks
    assert bytes_of(tmp_path / "theirs") == bytes_of(tmp_path / "ours")


def test_what_slurm_does_not_do_is_said(tmp_path, sources, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name in "sbatch", "squeue":
        body = STANDS_IN["squeue"] if name == "squeue" else "echo Submitted batch job 7"
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("cngpt.corpus.executors.POLL_SLURM", 0.01)
    with pytest.raises(UserError, match=r"units were not done"):
        run(sources, tmp_path / "theirs", engine="datatrove_slurm", slurm=SLURM)


@pytest.mark.slow
def test_ray_gives_our_bytes(tmp_path, sources, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]))
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    try:
        run(sources, tmp_path / "theirs", dedup=DEDUP, engine="datatrove_ray", processes=2)
    finally:
        ray.shutdown()
    assert bytes_of(tmp_path / "theirs") == bytes_of(tmp_path / "ours")


@pytest.mark.parametrize(
    ("engine", "absent", "message"),
    [
        ("datatrove", "datatrove", r"prepare\.engine=datatrove needs datatrove, .*pip install -e '\.\[datatrove\]'"),
        ("datatrove_ray", "ray", r"prepare\.engine=datatrove_ray needs ray, .*pip install -e"),
        ("datatrove_slurm", "", r"prepare\.slurm\.partition=\.\.\. is needed: the part of the cluster"),
    ],
)
def test_what_an_engine_needs_is_asked_for_before_anything_starts(monkeypatch, engine, absent, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None if package == absent else object())
    with pytest.raises(ConfigError, match=message):
        Prepare(engine=engine).check_engine()
