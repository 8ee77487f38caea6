"""What pytest in level 1 found out, as this host tells it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.rig.machine import Ended

REPORT = "junit.xml"  # pytest's, in the results
VERSION = "firecracker-version"  # what Firecracker says of itself
MOST_WORDS = 4000  # characters of a failure
_STATES = {"failure": "failed", "error": "errors", "skipped": "skipped"}


@dataclass(frozen=True)
class Result:
    """One test of level 1; ``state`` is passed, failed, errors (outside of the test), skipped."""

    name: str
    state: str
    seconds: float
    words: str = ""


@dataclass(frozen=True)
class Outcome:
    """A whole run. ``problem`` is why it is worth nothing, beyond tests that failed."""

    version: str
    tests: tuple[Result, ...]
    seconds: float
    directory: Path
    problem: str = ""

    @property
    def good(self) -> bool:
        return not self.problem and not self.failures()

    def failures(self) -> list[Result]:
        return [test for test in self.tests if test.state in ("failed", "errors")]

    def summary(self) -> str:
        """Lines for the end of a test run."""
        counts = Counter(test.state for test in self.tests).most_common()
        found = ", ".join(f"{count} {state}" for state, count in counts) or "none"
        return "\n".join(
            (
                self.version or "Firecracker did not say its version",
                f"{len(self.tests)} tests in level 1: {found}; {self.seconds:.0f} s in all",
                *(f"skipped: {test.name}: {test.words}" for test in self._skipped()),
                f"logs: {self.directory}",
            )
        )

    def complaint(self) -> str:
        """What a person needs to know of a run that was not good."""
        told = [
            f"{test.name} ({test.state})\n{test.words[-MOST_WORDS:]}" for test in self.failures()
        ]
        output = _last_words(self.directory / "output.log") if self.problem else ""
        return "\n\n".join(filter(None, (self.problem, *told, output, self.summary())))

    def _skipped(self) -> list[Result]:
        return [test for test in self.tests if test.state == "skipped"]


def outcome(ended: Ended, directory: Path, seconds: float) -> Outcome:
    """Judge a run by how level 1 ended and by what is in ``directory``/results."""
    results = directory / "results"
    version = _first_line(results / VERSION)
    try:
        tests = read_report(results / REPORT)
    except (OSError, ElementTree.ParseError):
        tests = ()
    return Outcome(version, tests, seconds, directory, _problem(ended, tests))


def read_report(report: Path) -> tuple[Result, ...]:
    """The tests of a JUnit XML file, as pytest writes it."""
    return tuple(_test(case) for case in ElementTree.parse(report).iter("testcase"))


def _test(case: ElementTree.Element) -> Result:
    name = f"{case.get('classname', '')}::{case.get('name', '')}"
    seconds = float(case.get("time", 0))
    for child in case:
        if state := _STATES.get(child.tag):
            message = child.get("message", "")
            return Result(
                name, state, seconds, message if state == "skipped" else child.text or message
            )
    return Result(name, "passed", seconds)


def _problem(ended: Ended, tests: tuple[Result, ...]) -> str:
    """pytest's status must be known, and be that of a run to the end; and tests have to run."""
    if ended.status is None:
        return ended.problem
    if ended.status == 124:
        return "The suite was stopped in level 1: its time was over."
    if ended.status not in (0, 1):
        return f"pytest in level 1 exited with {ended.status}; its output is in output.log."
    if not any(test.state != "skipped" for test in tests):
        return "No test ran in level 1."
    if ended.status == 1 and all(test.state in ("passed", "skipped") for test in tests):
        return "pytest in level 1 exited with 1, though no test failed; see output.log."
    return ""


def _last_words(path: Path) -> str:
    try:
        words = path.read_text(errors="replace")[-MOST_WORDS:]
    except OSError:
        return ""
    return f"The last of {path.name}:\n{words}" if words else ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
