"""The rules of nftables, as text for `nft -f`: one table on the host, one in each namespace.

Interfaces of VMs on the host are told by their group, not by their names, which others may use.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

GROUP = 10213
TABLE = "nexus"
GUESTS = "10.0.2.0/24"
GATEWAY = "10.0.2.2/24"
DNS = "10.0.2.3"


def host_rules(pool: IPv4Network, resolver: IPv4Address | None) -> str:
    """The host's table, made anew in one step. Other tables may still drop what it lets pass.

    A guest reaches what the host reaches, but not the host, another VM, or 169.254.0.0/16 (the
    credentials of a cloud's machine). Its DNS goes to the host's resolver, if that is known.
    IPv6 does not work: to find the host by it takes a packet to the host.
    """
    question = f"meta l4proto {{ tcp, udp }} th dport 53 ct status dnat ct original ip daddr {pool}"
    return f"""\
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    iifgroup != {GROUP} accept
    ct state established,related accept
    {question} accept
    reject with icmpx admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    oifgroup {GROUP} ct state established,related accept
    oifgroup {GROUP} reject with icmpx admin-prohibited
    iifgroup != {GROUP} accept
    ip saddr != {pool} drop
    {question} accept
    ip daddr 169.254.0.0/16 reject with icmpx admin-prohibited
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    {_dns(f"iifgroup {GROUP} ip daddr {pool}", resolver)}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {pool} oifgroup != {GROUP} masquerade
  }}
}}
"""


def remove_host_rules() -> str:
    return f"add table inet {TABLE}\ndelete table inet {TABLE}\n"


def guest_rules(host_end: IPv4Address) -> str:
    """The table in a VM's namespace: only the guest's own addresses pass, by that of `up0`.

    Its questions go on to the host's end of the cable, and from there to the resolver of the
    day: the host's rules may change while the VM runs.
    """
    return f"""\
table inet {TABLE} {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname tap0 oifname up0 ip saddr {GUESTS} accept
    iifname up0 oifname tap0 ct state established,related accept
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    {_dns(f"iifname tap0 ip daddr {DNS}", host_end)}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname up0 masquerade
  }}
}}
"""


def _dns(match: str, server: IPv4Address | None) -> str:
    if server is None:
        return ""
    return "\n    ".join(f"{match} {kind} dport 53 dnat ip to {server}" for kind in ("udp", "tcp"))
