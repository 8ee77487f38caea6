"""What a guest tells is checked; what a host tells is too."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest_agent.fields import text_field
from guest_agent.headers import MAX_HEADER, decode_header, encode_header
from guest_agent.messages import Configuration, Configured, Heartbeat, Hello, Network
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Invalid

from .guests import HELLO

HEARTBEAT: dict[str, Any] = {
    "ok": True,
    "uptime": 12.5,
    "time": 1.8e9,
    "load": [0, 0.5, 1],
    "memory": {"total": 256 << 20, "available": 100 << 20},
    "disks": [{"path": "/", "total": 10, "free": 5}],
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3)
    ),
    max_leaves=8,
)


def test_a_hello_is_read() -> None:
    hello = Hello.parse(HELLO)
    assert hello.agent_version == "1.2.3"
    assert hello.image.image_id == "aaaaaaaaaaaac"
    assert hello.boot.agent_started == 1.5
    assert hello.identity == "", "of an agent that knows nothing of it"
    assert Hello.parse(HELLO | {"identity": "new"}).identity == "new"
    assert json.loads(json.dumps(hello.to_dict()))["boot"]["settled"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "1"},
        {"protocol": True},
        {"protocol": 256},
        {"boot_id": "no"},
        {"boot_id": None},
        {"kernel": 6},
        {"image": []},
        {"image": {"image_id": 1}},
        {"boot": None},
        {"boot": {"settled": -1}},
        {"boot": {"settled": 1e300}},
        {"boot": {"settled": "1"}},
    ],
)
def test_a_hello_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Hello.parse(HELLO | change)


def test_texts_lose_what_disturbs_and_what_is_too_long() -> None:
    nasty = {"os": "\x1b[31mred\u202egnp\0.\ud800\u200b" + "x" * 10_000}
    assert text_field(nasty, "os") == "[31mredgnp." + "x" * 117
    assert text_field({}, "os") == ""


@settings(deadline=None)
@given(st.text(max_size=2000))
def test_texts_are_short_and_printable(text: str) -> None:
    cleaned = text_field({"os": text}, "os")
    assert len(cleaned) <= 128
    assert "\x1b" not in cleaned
    cleaned.encode()  # no lone surrogates


@settings(deadline=None)
@given(st.sampled_from(sorted(HELLO)), json_values)
def test_any_value_in_a_hello_is_read_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        Hello.parse(HELLO | {key: value})


def test_a_heartbeat_is_read() -> None:
    heartbeat = Heartbeat.parse(HEARTBEAT)
    assert heartbeat.load == (0, 0.5, 1)
    assert heartbeat.memory_total == 256 << 20
    assert heartbeat.disks[0].free == 5
    assert json.loads(json.dumps(heartbeat.to_dict()))["disks"][0]["path"] == "/"


@pytest.mark.parametrize(
    "change",
    [
        {"uptime": None},
        {"uptime": float("inf")},
        {"uptime": float("nan")},
        {"load": [0, 1]},
        {"load": [0, 0, 0, 0]},
        {"load": [0, 0, "high"]},
        {"memory": {"total": 1}},
        {"memory": {"total": -1, "available": 0}},
        {"memory": {"total": 2**64, "available": 0}},
        {"disks": {}},
        {"disks": [1]},
        {"disks": [{"path": "/", "total": 1}]},
        {"disks": [{"path": "/", "total": 1, "free": 0}] * 65},
    ],
)
def test_a_heartbeat_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Heartbeat.parse(HEARTBEAT | change)


@settings(deadline=None)
@given(st.sampled_from(sorted(HEARTBEAT)), json_values)
def test_any_value_in_a_heartbeat_is_read_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        Heartbeat.parse(HEARTBEAT | {key: value})


def test_a_configuration_leaves_out_what_it_does_not_set() -> None:
    assert set(Configuration().to_dict()) == {"entropy"}
    full = Configuration(
        hostname="otter", time=1.5, network=Network(), env={"A": "b"}, entropy=b"\1\2"
    )
    assert full.to_dict() == {
        "hostname": "otter",
        "time": 1.5,
        "entropy": "AQI=",
        "env": {"A": "b"},
        "network": {
            "address": "10.0.2.15/24",
            "gateway": "10.0.2.2",
            "dns": ("10.0.2.3",),
            "interface": "eth0",
            "mac": "",
        },
    }
    named = Configuration(identity="aaaaaaaaaaaac", boot_id=HELLO["boot_id"]).to_dict()
    assert (named["identity"], named["boot_id"]) == ("aaaaaaaaaaaac", HELLO["boot_id"])


@pytest.mark.parametrize(
    "wanted", [{"identity": ""}, {"identity": "a/b"}, {"identity": "a" * 65}, {"boot_id": "a"}]
)
def test_who_a_guest_is_must_be_a_name(wanted: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        Configuration(**wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize("mac", ["52:54:00:00:00", "ff:ff:ff:ff:ff:ff", "52-54-00-00-00-01", "x"])
def test_a_mac_must_be_an_interfaces_own(mac: str) -> None:
    with pytest.raises(Invalid):
        Network(mac=mac)


def test_an_answer_to_a_configuration_is_read() -> None:
    answer = {"ok": True, "time": 1.8e9, "boot_id": HELLO["boot_id"], "identity": "new"}
    assert Configured.parse(answer) == Configured(1.8e9, HELLO["boot_id"], "new")
    assert Configured.parse({"ok": True}) == Configured(), "of an agent that says no more"
    for change in ({"boot_id": "no"}, {"time": "now"}, {"time": -1}, {"identity": 3}):
        with pytest.raises(ProtocolError):
            Configured.parse(answer | change)


def test_two_guests_never_get_the_same_entropy() -> None:
    assert Configuration().entropy != Configuration().entropy
    assert "entropy" not in repr(Configuration())


@pytest.mark.parametrize("hostname", ["", "-a", "a-", "A", "a.b", "a" * 64, "a\n", "ä"])
def test_a_host_name_must_be_one(hostname: str) -> None:
    with pytest.raises(Invalid):
        Configuration(hostname=hostname)


@pytest.mark.parametrize("env", [{"1": "a"}, {"A B": "a"}, {"": "a"}, {"A": "\0"}, {"A\n": "a"}])
def test_a_variable_must_be_one(env: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        Configuration(env=env)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"3",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1',
        b"\xff{}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"a":' + b"9" * 50_000 + b"}",
    ],
)
def test_a_header_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_header(text)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_refused(text: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_header(text), dict)


def test_a_header_is_bounded() -> None:
    assert len(encode_header({"a": "x" * (MAX_HEADER - 8)})) == MAX_HEADER + 4
    with pytest.raises(ValueError, match="more than"):
        encode_header({"a": "x" * (MAX_HEADER - 7)})
    with pytest.raises(ValueError):  # noqa: PT011 - json's own text
        encode_header({"a": float("nan")})
