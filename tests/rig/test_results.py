"""What is made of the results of level 1: of a real pytest's report, and of a missing one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig.machine import Ended
from tests.rig.results import REPORT, VERSION, Outcome, outcome, read_report
from tests.rig.summary import PROPERTY

ROOT = Path(__file__).resolve().parents[2]
TESTS = """\
import pytest

@pytest.fixture
def broken():
    raise OSError("no tap")

def test_good(): pass
def test_bad(): assert 1 == 2
def test_unborn(broken): pass
@pytest.mark.skip(reason="not here")
def test_left_out(): pass
"""


def run_pytest(directory: Path, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A pytest of its own, with none of this project's settings."""
    (directory / "test_inner.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", str(directory)]
    plain = ["-p", "no:cacheprovider", "-p", "no:django", "-p", "no:hypothesispytest"]
    return subprocess.run(
        [*command, *plain, *arguments, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("inner")
    report = directory / REPORT
    assert run_pytest(directory, TESTS, f"--junitxml={report}").returncode == 1
    return report


@pytest.fixture
def directory(tmp_path: Path, report: Path) -> Path:
    """What a run leaves: a report, and Firecracker's version."""
    (tmp_path / "results").mkdir()
    shutil.copy(report, tmp_path / "results")
    (tmp_path / "results" / VERSION).write_text("Firecracker v1.12.1\n\nand more\n")
    return tmp_path


def judge(directory: Path, status: int | None, problem: str = "") -> Outcome:
    return outcome(Ended(status, problem), directory, 12.3)


def test_each_test_is_read(report: Path) -> None:
    states = {test.name: test.state for test in read_report(report)}
    assert states == {
        "test_inner::test_good": "passed",
        "test_inner::test_bad": "failed",
        "test_inner::test_unborn": "errors",
        "test_inner::test_left_out": "skipped",
    }


def test_what_failed_is_told_with_its_words(directory: Path) -> None:
    found = judge(directory, 1)
    assert not found.good
    complaint = found.complaint()
    assert "test_inner::test_bad (failed)" in complaint
    assert "assert 1 == 2" in complaint
    assert "no tap" in complaint
    assert str(directory) in complaint


def test_the_summary_counts_and_names_firecracker(directory: Path) -> None:
    lines = judge(directory, 1).summary().splitlines()
    assert lines[0] == "Firecracker v1.12.1"
    assert lines[1].startswith("4 tests in level 1: ")
    assert "1 passed" in lines[1]
    assert "skipped: test_inner::test_left_out: not here" in lines


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (None, "Level 1 ended without a status."),
        (124, "its time was over"),
        (2, "exited with 2"),
        (137, "exited with 137"),
    ],
)
def test_a_run_that_did_not_come_to_its_end_is_not_good(
    directory: Path, status: int | None, words: str
) -> None:
    (directory / "output.log").write_text("test_it_hangs ")
    found = judge(directory, status, "Level 1 ended without a status.")
    assert not found.good
    assert words in found.problem
    assert "test_it_hangs" in found.complaint()


def test_a_run_without_a_report_is_not_good(tmp_path: Path) -> None:
    found = judge(tmp_path, 0)
    assert found.problem == "No test ran in level 1."
    assert "did not say its version" in found.summary()


def test_a_cut_report_is_as_good_as_none(directory: Path) -> None:
    report = directory / "results" / REPORT
    report.write_text(report.read_text()[:200])
    assert judge(directory, 0).problem == "No test ran in level 1."


def test_failing_without_a_failure_is_not_good(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    report = tmp_path / "results" / REPORT
    run_pytest(tmp_path, "def test_good(): pass\n", f"--junitxml={report}")
    assert judge(tmp_path, 0).good
    assert not judge(tmp_path, 1).good


def test_the_summary_is_printed_also_where_another_process_ran_the_test(tmp_path: Path) -> None:
    tests = f"def test_it(record_property): record_property({PROPERTY!r}, 'Firecracker v9')\n"
    done = run_pytest(tmp_path, tests, "-p", "tests.rig.summary", "-p", "xdist", "-n", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Firecracker v9") == 1
