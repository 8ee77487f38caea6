"""Restart policies, unreachable actions and agents on the command line."""

from __future__ import annotations

from tests.nexusctl import answers as a


def test_a_planned_restart_is_shown(server, nexusctl):
    row = a.VM_DETAIL | {"state": "crashed", "restart_at": "2026-07-29T12:00:08Z", "restarts": 2}
    server.on("GET", "/vms/hello", row)
    out = nexusctl("vm", "inspect", "hello").out
    assert "restart     on-failure, starts again in 8.0 s, attempt 3\n" in out


def test_a_restart_that_is_overdue_is_shown_as_now(server, nexusctl):
    row = a.VM_DETAIL | {"restart_at": "2026-07-29T11:00:00Z"}
    server.on("GET", "/vms/hello", row)
    assert "starts again in 0.0 s, attempt 1\n" in nexusctl("vm", "inspect", "hello").out


def test_an_outdated_agent_is_told(server, nexusctl):
    server.on("GET", "/vms", a.page(a.VM | {"agent_outdated": True}))
    server.on("GET", "/vms/hello", a.VM_DETAIL | {"agent_outdated": True})
    assert "0.1.0 (outdated)\n" in nexusctl("vm", "list").out
    assert "0.1.0 (outdated), heard 2.0 s ago\n" in nexusctl("vm", "inspect", "hello").out


def test_policies_are_changed(server, nexusctl):
    server.on("PATCH", "/vms/hello", a.VM_DETAIL)
    done = nexusctl("vm", "update", "hello", "--restart", "always", "--on-unreachable", "stop")
    assert done.code == 0
    (seen,) = server.asked("PATCH", "/vms/hello")
    assert seen.body == {"restart_policy": "always", "unreachable_action": "stop"}
    assert "starts next" not in done.err, "it takes effect at once"


def test_what_is_no_policy_is_a_usage_error(server, nexusctl):
    assert nexusctl("vm", "update", "hello", "--restart", "maybe").code == 2


def test_all_outdated_agents_are_upgraded(server, nexusctl):
    old = [a.VM | {"name": name, "agent_outdated": True} for name in ("one", "two")]
    server.on("GET", "/vms", a.page(a.VM, *old))
    for name in ("one", "two"):
        server.on("POST", f"/vms/{name}/agent-upgrade", a.operation("succeeded"))
    assert nexusctl("vm", "agent-upgrade", "--all-outdated").code == 0
    posts = [seen.path for seen in server.seen if seen.method == "POST"]
    assert posts == ["/v1/vms/one/agent-upgrade", "/v1/vms/two/agent-upgrade"]
    assert server.seen[0].query["state"] == "ready"


def test_where_none_is_outdated_it_says_so(server, nexusctl):
    server.on("GET", "/vms", a.page(a.VM))
    done = nexusctl("vm", "agent-upgrade", "--all-outdated")
    assert (done.code, done.err) == (0, "No ready VM has an outdated agent.\n")


def test_one_is_named_or_all_are_meant(server, nexusctl):
    assert nexusctl("vm", "agent-upgrade").code == 2
    assert nexusctl("vm", "agent-upgrade", "hello", "--all-outdated").code == 2
