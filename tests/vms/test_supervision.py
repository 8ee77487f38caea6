"""Steps that wait for a VM look again when one has moved."""

from __future__ import annotations

import threading

from vms import supervision

FOR_EVER = 600.0
PATIENCE = 60.0


def ends(since: int) -> bool:
    """Whether a wait that began after ``since`` moves ends long before its time is over."""
    waiting = threading.Thread(
        target=supervision.wait_for_move, args=(since, FOR_EVER), daemon=True
    )
    waiting.start()
    waiting.join(PATIENCE)
    return not waiting.is_alive()


def test_a_move_between_the_look_and_the_wait_is_not_missed() -> None:
    moves = supervision.moves()
    supervision.announce_move()
    assert ends(moves)


def test_a_move_ends_the_wait() -> None:
    threading.Timer(0.2, supervision.announce_move).start()
    assert ends(supervision.moves())


def test_without_one_the_wait_ends_with_its_time() -> None:
    supervision.wait_for_move(supervision.moves(), 0.01)
