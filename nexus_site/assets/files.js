// Uploads into the directory that the page of a VM's files shows: one after the other, straight
// to the API, each with its progress. What has arrived shows by itself: the page is live.
(() => {
  "use strict";

  const queue = [];
  let sending = false;

  const list = () => document.getElementById("uploads");
  const section = () => document.querySelector("#vms-files[data-uploads]");

  function make(tag, className, text = "") {
    const element = document.createElement(tag);
    element.className = className;
    element.textContent = text;
    return element;
  }

  // Control characters and those that turn the direction of writing, as escapes.
  function visible(name) {
    return name.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
  }

  function enqueue(files) {
    const { uploads, directory, csrf } = section().dataset;
    for (const file of files) {
      const path = `${directory.replace(/\/$/, "")}/${encodeURIComponent(file.name)}`;
      const line = make("li", "");
      const bar = Object.assign(make("progress", "bar"), { max: 100, value: 0 });
      bar.setAttribute("aria-label", `Upload of ${visible(file.name)}`);
      const words = make("span", "hint", "waits");
      line.append(make("bdi", "", visible(file.name)), bar, words);
      list().append(line);
      list().hidden = false;
      queue.push({ file, url: `${uploads}?path=${path}`, csrf, line, bar, words });
    }
    if (!sending) sendAll();
  }

  async function sendAll() {
    sending = true;
    while (queue.length) {
      const upload = queue.shift();
      const problem = await send(upload).catch(() => "The upload broke off. Send it again.");
      settle(upload, problem);
    }
    sending = false;
  }

  async function send(upload) {
    const there = await fetch(upload.url, { method: "HEAD" });
    const name = visible(upload.file.name);
    if (there.ok && !confirm(`Replace “${name}”, which is there already?`)) return "It was left as it is.";
    return put(upload);
  }

  // Why it failed, or nothing.
  function put({ file, url, csrf, bar, words }) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.upload.onprogress = ({ loaded, total }) => {
        bar.value = total ? (100 * loaded) / total : 100;
        words.textContent = `${Math.floor(bar.value)} %`;
      };
      request.onerror = reject;
      request.onload = () => resolve(request.status < 400 ? "" : reason(request));
      request.open("PUT", url);
      request.setRequestHeader("X-CSRFToken", csrf);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.send(file);
    });
  }

  function reason(request) {
    try {
      const { detail, hint } = JSON.parse(request.responseText);
      return [detail, hint].filter(Boolean).join(" ");
    } catch {
      return `Nexus answered ${request.status}.`;
    }
  }

  function settle({ line, bar, words }, problem) {
    bar.hidden = true;
    words.textContent = problem ? "" : "done";
    if (problem) line.append(make("span", "upload-failed", problem));
    setTimeout(() => { line.remove(); list().hidden = !list().children.length; }, problem ? 30_000 : 3000);
  }

  document.addEventListener("change", ({ target }) => {
    if (!target.matches?.("input[data-files]")) return;
    enqueue([...target.files]);
    target.value = "";
  });

  document.addEventListener("input", ({ target }) => {
    target.closest?.(".file-edit")?.querySelector(".file-saved")?.remove();
  });

  const carriesFiles = (event) => section() && event.dataTransfer?.types.includes("Files");
  const light = (on) => section()?.classList.toggle("files-over", on);

  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    light(true);
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) light(false); });
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    light(false);
    // A directory has an entry, but no bytes.
    const items = [...event.dataTransfer.items].filter((item) => item.webkitGetAsEntry?.()?.isFile !== false);
    enqueue(items.map((item) => item.getAsFile()).filter(Boolean));
  });

  addEventListener("beforeunload", (event) => { if (sending) event.preventDefault(); });
})();
