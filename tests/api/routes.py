"""Every endpoint of the API, read from its OpenAPI document."""

from __future__ import annotations

from typing import NamedTuple

from nexus_site.api import api

#: Bodies, or a GET's query, with which an endpoint gets as far as looking for what its path names.
BODIES = {
    "read_image_file": {"path": "/"},
    "attach_drive": {"vm": "hello"},
    "exec_program": {"argv": ["true"]},
    "start_session": {"argv": ["true"]},
    "signal_session": {"signal": "INT"},
    "type_into_session": {"data": "x"},
    "update_vm": {"name": "other"},
    "replace_provisioning": {"env": {"A": "1"}},
    "change_provisioning": {"env": {"A": "1"}},
    "create_vm": {"image": "nope"},
    "balloon_vm": {"mem_size_mib": 64},
    "make_warm_template": {"image": "nope"},
    "create_pool": {"name": "ready", "image": "nope"},
    "update_pool": {"size": 3},
    "create_drive": {"image": "nope"},
    "resize_drive": {"size_mib": 9000},
    "update_drive": {"name": "other"},
    "update_snapshot": {"name": "other"},
    "init_storage": {"size_mib": 1024},
    "roll_back_drive": {"snapshot": "before"},
    "roll_back_vm": {"snapshot": "nope"},
    "update_vm_snapshot": {"name": "other"},
    "update_image": {"name": "other"},
    **{
        f"create_{target}_from_{source}": body
        for target in ("image", "drive", "vm")
        for source, body in {
            "rootfs": {"distro": "nope", "version": "1"},
            "template": {"template": "nope"},
            "image": {"image": "nope"},
        }.items()
        if target != source
    },
    "create_template": {"rootfs": "aaaaaaaaaaaaq"},
    "update_template": {"description": "x"},
    "revert_template": {"version": 1},
    "download_rootfs": {"distro": "nope", "version": "1"},
    "download_firecracker": {"version": "1.12.1"},
    "create_token": {"name": "x"},
    "create_provider": {"name": "x", "type": "embedded"},
    "update_provider": {},
}
UNSAFE = {"post", "put", "patch", "delete"}


class Route(NamedTuple):
    method: str
    path: str
    name: str

    @property
    def unsafe(self) -> bool:
        return self.method in UNSAFE

    def on(self, ref: str) -> str:
        path = self.path.replace("{ref}", ref).replace("{number}", "1")
        return path.replace("{session}", "main")


def all_routes() -> list[Route]:
    document = api.get_openapi_schema(path_prefix="")
    return [
        Route(method, path, endpoint["operationId"])
        for path, methods in document["paths"].items()
        for method, endpoint in methods.items()
    ]


ROUTES = all_routes()
ADMIN_ONLY = {
    "list_tokens",
    "create_token",
    "revoke_token",
    "create_sign_in_link",
    "repair_storage",
    "init_storage",
    "refresh_firecracker_releases",
    "download_firecracker",
    "use_firecracker",
    "remove_firecracker",
}
