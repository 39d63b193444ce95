"""The deployment examples, as far as a machine without systemd's, Slurm's and Kubernetes' daemons can try them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.command_line import run

EXAMPLES = Path(__file__).parents[2] / "examples"
UNIT = EXAMPLES / "systemd" / "diachunk-serve.service"
PROLOG = EXAMPLES / "slurm" / "prolog.sh"

pytestmark = pytest.mark.loopback


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_unit_is_what_systemd_takes(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("ExecStart=diachunk", f"ExecStart={sys.executable} -m diachunk")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    checked = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_unit_is_started_again_only_where_that_helps() -> None:
    lines = UNIT.read_text().splitlines()
    for wanted in (
        "Type=notify",
        "RestartPreventExitStatus=2 6",
        "DynamicUser=yes",
        "CacheDirectory=diachunk",
    ):
        assert wanted in lines


@pytest.fixture
def prolog(tmp_path: Path) -> Callable[..., tuple[int, list[str], str]]:
    """Runs the prolog of a job with that comment, where `diachunk` does as it is told."""

    def start(comment: str = "(null)", does: str = "exit 0", **settings: str) -> tuple[int, list[str], str]:
        asked = tmp_path / "asked"
        asked.write_text("")
        for name, body in {
            "diachunk": f'echo "$*" >> {asked}\n{does}',
            "scontrol": f"echo 'JobId=7 JobName=x Comment={comment} UserId=u(1)'",
            "logger": "exit 1",
        }.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / name).chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "DIACHUNK_USER": "root",
            "DIACHUNK_PROLOG_LOCK": str(tmp_path / "lock"),
            "DIACHUNK_CONFIG": str(tmp_path / "config.toml"),
            "DIACHUNK_PROLOG_S": "20",
        }
        done = subprocess.run(
            ["sh", str(PROLOG)],
            env={**environment, **settings},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, asked.read_text().splitlines(), done.stderr

    return start


Prolog = Callable[..., tuple[int, list[str], str]]


def test_the_prolog_fetches_what_the_job_names(prolog: Prolog) -> None:
    code, asked, log = prolog("x;diachunk=dia-1.6b,lab/other@v2")
    assert (code, log) == (0, "")
    assert asked == [
        "fetch --quiet --linger 20s dia-1.6b",
        "fetch --quiet --linger 20s lab/other@v2",
    ]


def test_the_prolog_fetches_what_the_config_names_or_nothing(prolog: Prolog, tmp_path: Path) -> None:
    assert prolog() == (0, [], "")
    (tmp_path / "config.toml").write_text('checkpoints = ["dia-1.6b"]\n')
    assert prolog() == (0, ["fetch --quiet --linger 20s"], "")


@pytest.mark.parametrize(
    "comment", ["diachunk=--debug", "diachunk=-x,;touch", "diachunk=$(reboot)", "diachunk=../.."]
)
def test_a_job_can_put_no_option_and_no_command_into_its_comment(prolog: Prolog, comment: str) -> None:
    code, asked, _ = prolog(comment)
    assert (code, asked) == (0, [])


def test_only_this_machines_own_trouble_drains_it(prolog: Prolog) -> None:
    assert prolog("diachunk=dia", "exit 6")[0] == 1
    for code in (1, 2, 5, 7):
        done, _, log = prolog("diachunk=dia", f"exit {code}")
        assert done == 0
        assert f"exit {code}" in log


def test_the_prolog_ends_in_time_and_lets_the_job_start(prolog: Prolog) -> None:
    code, asked, log = prolog("diachunk=dia,other", "exec sleep 30", DIACHUNK_PROLOG_S="1")
    assert (code, len(asked)) == (0, 1)
    assert "not done after 1 s" in log


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_the_prolog_is_clean_shell() -> None:
    assert subprocess.run(["shellcheck", str(PROLOG)]).returncode == 0


def _documents() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load_all((EXAMPLES / "kubernetes" / "diachunk.yaml").read_text())
    return {each["kind"]: each for each in found}


def test_the_daemon_set_is_found_by_the_service_and_runs_as_nobody() -> None:
    documents = _documents()
    service, daemons = documents["Service"]["spec"], documents["DaemonSet"]["spec"]
    assert service["clusterIP"] == "None"
    pod = daemons["template"]
    assert pod["metadata"]["labels"] == service["selector"] == daemons["selector"]["matchLabels"]
    (container,) = pod["spec"]["containers"]
    assert container["ports"][0]["name"] == service["ports"][0]["targetPort"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    metadata = documents["Service"]["metadata"]
    name = f"--peer=dns:{metadata['name']}.{metadata['namespace']}.svc.cluster.local"
    assert name in container["args"]
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["spec"]["volumes"]}


def test_the_options_in_the_examples_are_options() -> None:
    shown = run("serve", "-h").stdout
    (container,) = _documents()["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    for word in container["args"][1:]:
        assert word.partition("=")[0] in shown


def test_the_container_runs_as_nobody_and_its_health_check_is_python() -> None:
    text = (EXAMPLES / "container" / "Containerfile").read_text()
    assert re.search(r"^USER \d+:\d+$", text, re.M)
    check = re.search(r"^HEALTHCHECK [^\[]*(\[.*?\])$", text.replace("\\\n", ""), re.M)
    assert check is not None
    python, flag, code = json.loads(check[1])
    assert (python, flag) == ("python", "-c")
    closed = subprocess.run([sys.executable, "-c", code.replace("8420", "1")], capture_output=True)
    assert closed.returncode == 1
    assert b"ConnectionRefusedError" in closed.stderr
