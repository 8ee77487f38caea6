"""What each command prints, letter for letter."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from tests.nexusctl import answers as a


def text(block: str) -> str:
    return dedent(block).lstrip("\n")


def test_vm_list(server, nexusctl):
    server.on("GET", "/vms", a.page(a.VM, a.STOPPED_VM))
    done = nexusctl("vm", "list")
    assert done.out == text("""
        NAME        ID             STATE    SINCE      IMAGE        CPUS  MEMORY   AGENT
        hello       aebagbafaydqq  ready    2 min 0 s  alpine-3-23  2     1 GiB    0.1.0
        calm-otter  aaaaaaaaaaaca  stopped  2 d 0 h    -            1     512 MiB  -
    """)
    assert (done.code, done.err) == (0, "")
    assert server.seen[0].headers["authorization"] == "Bearer nxt_test"


def test_lists_follow_cursors_to_the_end(server, nexusctl):
    server.on("GET", "/vms", a.page(a.VM, next_cursor="more"), a.page(a.STOPPED_VM))
    assert "calm-otter" in nexusctl("vm", "list", "--state", "ready").out
    assert [s.query.get("cursor") for s in server.seen] == [None, "more"]
    assert all(s.query["state"] == "ready" for s in server.seen)


def test_an_empty_list_says_what_to_do_on_stderr(server, nexusctl):
    server.on("GET", "/vms", a.page())
    done = nexusctl("vm", "list")
    assert done.out == ""
    assert done.err == "No VMs. Make one: nexusctl vm from-rootfs alpine 3.23\n"


def test_json_is_the_answer_of_the_api(server, nexusctl):
    server.on("GET", "/vms", a.page(a.VM))
    for arguments in (["vm", "list", "--json"], ["--json", "vm", "list"]):
        assert json.loads(nexusctl(*arguments).out) == [a.VM]


def test_vm_inspect(server, nexusctl):
    server.on("GET", "/vms/hello", a.VM_DETAIL)
    assert nexusctl("vm", "inspect", "hello").out == text("""
        name        hello
        id          aebagbafaydqq
        state       ready for 2 min 0 s
        wanted      running
        image       alpine-3-23 (aaaaaaaaaayds)
        kernel      the default kernel
        cpus        2
        memory      1 GiB
        drives      hello (aaaaaaaaaaaba), root, 8.0 GiB
        limits      each disk 50 MiB/s, network 10 MiB/s
        mac         52:54:00:12:34:56
        hypervisor  QEMU 10.0.3, emulation
                    Firecracker is not usable here: no release is installed
        next start  automatic: Firecracker
                    the best that works here
        agent       0.1.0, heard 2.0 s ago
        restart     on-failure
                    when unreachable: keep
        idle        never suspended
        last boot   3, 2026-07-29T11:57:57.3Z, hello after 2.7 s
        created     2026-07-29T11:00:00.0Z
    """)


def test_vm_history_shows_times_reasons_and_the_post_mortem(server, nexusctl):
    server.on("GET", "/vms/hello/history", a.page(*a.HISTORY))
    assert nexusctl("vm", "history", "hello").out == text("""
        AT                      AFTER       STATE     REASON                                ACTOR
        2026-07-29T11:57:55.0Z  -           created   created                               token:nexusctl
        2026-07-29T11:57:57.1Z  +2.1 s      starting  start requested                       token:nexusctl
        2026-07-29T11:57:57.3Z  +0.2 s      running   the VMM runs (pid 42)                 token:nexusctl
        2026-07-29T11:58:00.0Z  +2.7 s      ready     agent 0.1.0 said hello after 2.7 s    token:nexusctl
        2026-07-29T12:58:00.0Z  +1 h 0 min  crashed   the VMM killed by signal 9 (SIGKILL)  token:nexusctl
            exit status: killed by signal 9 (SIGKILL)
            last heartbeat: 2026-07-29T12:57:58+00:00
            last console lines:
              Welcome to Alpine Linux 3.23
              hello login:
    """)  # noqa: E501


def test_vm_logs_prints_the_console_to_its_end(server, nexusctl):
    first = {"text": "Welcome\n", "offset": 0, "next_offset": 8, "size": 12}
    rest = {"text": "bye\n", "offset": 8, "next_offset": 12, "size": 12}
    server.on("GET", "/vms/hello/console", first, rest)
    assert nexusctl("vm", "logs", "hello").out == "Welcome\nbye\n"


def test_vm_logs_follows_until_the_vm_has_ended(server, nexusctl):
    pages = [
        {"text": "Welcome\n", "offset": 0, "next_offset": 8, "size": 8},
        {"text": "bye\n", "offset": 8, "next_offset": 12, "size": 12},
        {"text": "", "offset": 12, "next_offset": 12, "size": 12},
    ]
    server.on("GET", "/vms/hello/console", *pages)
    server.on("GET", "/vms/hello", a.VM_DETAIL | {"state": "stopped"})
    done = nexusctl("vm", "logs", "-f", "hello")
    assert done.out == "Welcome\nbye\n"
    assert done.err == "The VM is stopped; its console ends here.\n"
    assert [s.query.get("offset") for s in server.asked("GET", "/vms/hello/console")] == [
        None,
        "8",
        "12",
    ]


def test_what_a_guest_writes_is_harmless_on_a_terminal(server, nexusctl, monkeypatch):
    text = "\x1b[6n\x1b]0;title\x07\x1b[31mred\x1b[0m\r\ttab\x07\n"
    page = {"text": text, "offset": 0, "next_offset": 9, "size": 9}
    server.on("GET", "/vms/hello/console", page)
    assert nexusctl("vm", "logs", "hello").out == text, "a file gets all of it"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert nexusctl("vm", "logs", "hello").out == "red\ttab\n"


def test_image_list_and_inspect(server, nexusctl):
    server.on("GET", "/images", a.page(a.IMAGE))
    assert nexusctl("image", "list").out == text("""
        NAME         ID             OS                  ARCH    SIZE     ON DISK    AGENT  AGE
        alpine-3-23  aaaaaaaaaayds  Alpine Linux v3.23  x86_64  8.0 GiB  120.0 MiB  0.1.0  1 h 0 min
    """)
    server.on("GET", "/images/alpine-3-23", a.IMAGE_DETAIL)
    assert nexusctl("image", "inspect", "alpine-3-23").out == text(f"""
        name      alpine-3-23
        id        aaaaaaaaaayds
        os        Alpine Linux v3.23
        arch      x86_64
        rootfs    alpine 3.23 (aaaaaaaaaaabe)
        build     aaaaaaaaaaaea
        size      8.0 GiB
        on disk   120.0 MiB
        digest    {"ab" * 32}
        init      openrc
        packages  2
        drives    hello
        vms       hello
        agent     0.1.0
        created   2026-07-29T11:00:00.0Z
    """)


def test_template_list_and_inspect(server, nexusctl):
    server.on("GET", "/templates", a.page(a.TEMPLATE))
    assert nexusctl("template", "list").out == text("""
        NAME         ID             VERSION  ROOTFS       AGE
        alpine-3-23  aaaaaaaaaaafa  1        alpine 3.23  1 h 0 min
    """)
    server.on("GET", "/templates/t", a.TEMPLATE_DETAIL)
    assert nexusctl("template", "inspect", "t").out == text("""
        name         alpine-3-23
        id           aaaaaaaaaaafa
        description  -
        version      1 (aaaaaaaaaaaga)
        created      2026-07-29T11:00:00.0Z
        rootfs       alpine 3.23 (aaaaaaaaaaabe)
        init         auto
        size         1 GiB
        env          TZ=UTC
        files        /etc/motd  0644  0:0  6 B
                     /bin/tool  0755  0:0  3 B
        packages     nginx
                     curl
        commands     rc-update add nginx
                     if true; then
                       true
                     fi
    """)


def test_template_create(server, nexusctl):
    server.on("POST", "/templates", (201, a.TEMPLATE))
    done = nexusctl("template", "create", "alpine", "3.23")
    assert done.out == "alpine-3-23  aaaaaaaaaaafa\n"


def test_build_list_and_inspect(server, nexusctl):
    server.on("GET", "/builds", a.page(a.BUILD))
    assert nexusctl("build", "list").out == text("""
        ID             STATE      TEMPLATE        IMAGE        IMAGE ID       TOOK        AGE
        aaaaaaaaaaaea  succeeded  alpine-3-23 v1  alpine-3-23  aaaaaaaaaayds  1 min 15 s  1 h 0 min
    """)
    error = {"kind": "Broken", "code": "x", "text": "no mke2fs", "detail": "", "hint": "install it"}
    server.on("GET", "/builds/b", a.BUILD | {"state": "failed", "image": None, "error": error})
    shown = nexusctl("build", "inspect", "b").out
    assert "error      no mke2fs\nhint       install it\n" in shown


def test_build_log_follows_to_its_end(server, nexusctl):
    base = {"offset": 0, "next_offset": 4, "size": 4, "ended": False}
    pages = [
        base | {"text": "one\n"},
        base | {"text": ""},
        base | {"text": "two\n", "next_offset": 8, "size": 8, "ended": True},
    ]
    server.on("GET", "/builds/b/log", *pages)
    assert nexusctl("build", "log", "-f", "b").out == "one\ntwo\n"


def test_rootfs_list_and_installed(server, nexusctl):
    server.on("GET", "/rootfs/available", a.page(a.OFFER, a.OFFER | {"size_bytes": None}))
    assert nexusctl("rootfs", "list").out == text("""
        DISTRO  VERSION  ARCH    PROVIDER  SIZE      INSTALLED
        alpine  3.23     x86_64  embedded  45.0 MiB  yes
        alpine  3.23     x86_64  embedded  -         yes
    """)
    server.on("GET", "/rootfs", a.page(a.ROOTFS))
    assert nexusctl("rootfs", "installed").out == text("""
        DISTRO  VERSION  ID             ARCH    PROVIDER  SIZE      VERIFIED BY           AGE
        alpine  3.23     aaaaaaaaaaabe  x86_64  embedded  45.0 MiB  installed with Nexus  1 h 0 min
    """)


def test_kernels_that_are_here(server, nexusctl):
    server.on("GET", "/kernels", a.page(a.KERNEL))
    heading, row = nexusctl("kernel", "installed").out.splitlines()
    assert heading.split()[:4] == ["NAME", "ID", "VERSION", "STATE"]
    assert row.split()[:7] == [
        *("alpine-6-18-7", "aaaaaaaaaaaaq", "6.18.7", "good", "yes", "30.0", "MiB"),
    ]
    assert "qemu 2.1 s" in row


def test_operation_list_and_inspect(server, nexusctl):
    running = a.operation("running", a.step("launch", "Launch the VMM", "running"))
    server.on("GET", "/operations", a.page(running))
    assert nexusctl("operation", "list").out == text("""
        ID             STATE    TITLE           STEP    TOOK   AGE        ACTOR
        aaaaaaaaaaaha  running  Start VM hello  launch  3.0 s  2 min 4 s  token:nexusctl
    """)
    server.on("GET", "/operations/o", running)
    assert nexusctl("op", "inspect", "o").out == text("""
        id       aaaaaaaaaaaha
        title    Start VM hello
        state    running
        about    vm hello (aebagbafaydqq)
        actor    token:nexusctl
        created  2026-07-29T11:57:56.0Z
        took     3.0 s
          … Launch the VMM
    """)


def test_event_list(server, nexusctl):
    server.on("GET", "/events", {"items": [a.EVENT], "next_after": 7, "last_seq": 7})
    assert nexusctl("event", "list").out == (
        "     7  2026-07-29T11:58:00.0Z  vm.moved              hello  "
        "from=running to=ready reason=agent 0.1.0 said hello  (system)\n"
    )


def test_event_list_follow_goes_on_after_a_broken_stream(server, nexusctl):
    server.on("GET", "/events", {"items": [a.EVENT], "next_after": 7, "last_seq": 7})
    later = json.dumps(a.EVENT | {"seq": 8})
    server.on("GET", "/events/stream", f": connected\n\nid: 8\ndata: {later}\n\n".encode())
    # The stream ends and is asked for again; the second one is refused, which ends the test.
    stream = server.routes["GET", "/v1/events/stream"]
    stream.append(a.problem(403, "no more"))
    done = nexusctl("event", "list", "--follow", "--json")
    assert [json.loads(line)["seq"] for line in done.out.splitlines()] == [7, 8]
    assert done.code == 6
    asked = server.asked("GET", "/events/stream")
    assert [s.query["after"] for s in asked] == ["7", "8"]


def test_status(server, nexusctl):
    server.on("GET", "/status", a.STATUS)
    assert nexusctl("status").out == text("""
        server      Nexus 0.1.0
        worker      running since 2026-07-29T11:00:00.0Z
        vms         1 ready, 1 stopped
        operations  2 running, 0 queued
        cpus        8, 2 assigned to VMs
        memory      16 GiB, 9 GiB available, 1 GiB assigned to VMs
        disk        200.0 GiB, 150.0 GiB free
        load        0.42
    """)


def test_version_asks_no_server(server, nexusctl):
    assert nexusctl("version").out == "nexusctl 0.1.0\n"
    assert server.seen == []


def test_sign_in_link(server, nexusctl):
    server.on("POST", "/sign-in-link", {"url": "http://127.0.0.1:9600/sign-in/x/"})
    assert nexusctl("sign-in-link").out == "http://127.0.0.1:9600/sign-in/x/\n"


@pytest.mark.parametrize(("no_color", "expected"), [("", "\x1b[32mready"), ("1", "ready")])
def test_colours_unless_no_color(monkeypatch, no_color, expected):
    from nexusctl import output

    monkeypatch.setenv("NO_COLOR", no_color)
    assert output.state("ready").startswith(expected)
