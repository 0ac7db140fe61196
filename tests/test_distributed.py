import json
import os
import re
import signal

import psutil
import pytest
from test_experiments import begun_run, finish, first_row, one_process, run_python, tables, toy_study  # noqa: F401

from tfproject.errors import UserError
from tfproject.experiments import run_study, runner

pytestmark = pytest.mark.xdist_group("test_experiments")  # which makes the study that is compared with
SPREAD = "import sys, test_experiments as t; t.run_study(t.toy_study(sys.argv[1]), workers=2)"


def test_a_killed_workers_run_is_taken_up_and_the_table_is_that_of_one_process(one_process, tmp_path):  # noqa: F811
    study = run_python(SPREAD, tmp_path)
    interrupted = begun_run(tmp_path, study)
    worker = int(re.match(r"process (\d+) on", (interrupted / ".trial-lock").read_text()).group(1))
    assert worker in {child.pid for child in psutil.Process(study.pid).children(recursive=True)}
    os.kill(worker, signal.SIGKILL)
    row = first_row(interrupted)
    finish(study)
    assert tables(tmp_path) == tables(one_process)
    environments = json.loads((tmp_path / "metrics.json").read_text())["environments"]
    assert {environment["threads"] for environment in environments} == {runner.THREADS}
    assert first_row(interrupted) == row  # its seconds, too: the other worker went on from the checkpoint
    holders = {path.read_text() for path in tmp_path.glob("runs/*/.trial-lock")}
    assert str(worker) not in (interrupted / ".trial-lock").read_text()
    assert len(holders) >= 2 and f"process {study.pid} on" not in " ".join(holders)


def test_a_scheduler_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="no Dask scheduler at tcp://127.0.0.1:9"):
        run_study(toy_study(tmp_path), scheduler="tcp://127.0.0.1:9", progress=False)
