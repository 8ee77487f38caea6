// Bars of what VMs use, in the list of VMs: filled anew with the heartbeats of those on the page.
(() => {
  "use strict";

  const COLLECT = 100; // ms: heartbeats come in rounds of two seconds, one message a VM
  const heard = new Set();
  let timer = 0;

  function show(row, usage) {
    const shares = { cpu: usage?.cpu, memory: usage && usage.memory_used / usage.memory_total };
    for (const bar of row.querySelectorAll("[data-usage]")) {
      const share = shares[bar.dataset.usage];
      bar.hidden = share === null || share === undefined || Number.isNaN(share);
      if (bar.hidden) continue;
      bar.value = Math.round(share * 100);
      bar.title = `${bar.value} %`;
    }
  }

  async function ask() {
    timer = 0;
    const vms = [...heard].map((ref) => ["vm", ref]);
    heard.clear();
    try {
      const response = await fetch(`/v1/metrics/vms?${new URLSearchParams([...vms, ["limit", 200]])}`);
      for (const { id, usage } of response.ok ? (await response.json()).items : []) {
        const row = document.getElementById(`vm-${id}`);
        if (row) show(row, usage);
      }
    } catch { /* the page says by itself that Nexus does not answer */ }
  }

  document.addEventListener("nexus:event", ({ detail }) => {
    const [kind, ref] = detail.subject.split(":");
    if (kind !== "heartbeat" || !document.getElementById(`vm-${ref}`)) return;
    heard.add(ref);
    timer ||= setTimeout(ask, COLLECT);
  });
})();
