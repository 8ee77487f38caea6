// What makes the pages live: one socket that says what changed, fragments fetched again,
// logs that follow, clocks that tick. Everything else is HTML from the server.
(() => {
  "use strict";

  const FLUSH_EVERY = 200; // ms: at most five fetches a second
  const OFFLINE_AFTER = 1500; // ms without a socket until the banner shows
  const RETRY_MOST = 10_000; // ms between two tries
  const FORGET_AFTER = 10 * 60_000; // ms offline after which everything is fetched instead of replayed
  const LOG_MOST = 512 * 1024; // characters a log on a page keeps

  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const socketUrl = (path) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;

  // A websocket that is opened again whenever it closes. `greet` returns the first message.
  function keepOpen(path, { greet, receive, opened = () => {}, closed = () => {} }) {
    let pause = 250;
    let timer = 0;
    let socket = null;
    const connect = () => {
      socket = new WebSocket(socketUrl(path));
      socket.onopen = () => { pause = 250; socket.send(JSON.stringify(greet())); opened(); };
      socket.onmessage = (message) => receive(JSON.parse(message.data));
      socket.onclose = (event) => {
        if (closed(event) === false) return;
        timer = setTimeout(connect, pause * (0.75 + Math.random() / 2));
        pause = Math.min(pause * 2, RETRY_MOST);
      };
    };
    const now = () => {
      if (!socket || socket.readyState !== WebSocket.CLOSED) return;
      clearTimeout(timer);
      connect();
    };
    addEventListener("online", now);
    document.addEventListener("visibilitychange", () => document.hidden || now());
    addEventListener("pageshow", (event) => event.persisted && now());
    connect();
  }

  // Live fragments: an element with data-live="vm:ID vms vm.moved" is fetched again when
  // an event has one of these topics (“news” is every event but the steps of operations);
  // from data-live-url, else from the page's own address.

  const changed = new Set();
  let flushTimer = 0;
  let flushing = false;

  function note(topics) {
    for (const element of $$("[data-live]")) {
      const wanted = element.dataset.live.split(" ");
      if (topics === null || wanted.some((topic) => topics.has(topic))) changed.add(element.id);
    }
    if (changed.size && !flushTimer && !flushing) flushTimer = setTimeout(flush, FLUSH_EVERY / 4);
  }

  async function flush() {
    const elements = [...changed].map((id) => document.getElementById(id)).filter(Boolean);
    changed.clear();
    flushTimer = 0;
    flushing = true;
    const own = elements.filter((element) => element.dataset.liveUrl);
    const ofPage = elements.filter((element) => !element.dataset.liveUrl);
    const fetches = own.map((element) => htmx.ajax("GET", element.dataset.liveUrl, {
      source: element, target: element, swap: "outerMorph", live: true,
    }));
    if (ofPage.length) {
      fetches.push(htmx.ajax("GET", location.pathname + location.search, {
        source: document.body, swap: "none", live: true,
        headers: { "Nexus-Fragments": ofPage.map((element) => element.id).join(" ") },
      }));
    }
    await Promise.allSettled([...fetches, htmx.timeout(FLUSH_EVERY)]);
    flushing = false;
    if (changed.size) flush();
  }

  document.addEventListener("htmx:before:response", (event) => {
    const { ctx } = event.detail;
    if (!ctx.live || ctx.response.status < 400) return;
    event.preventDefault(); // what cannot be fetched again stays as it was
    if (ctx.response.status === 404 && ctx.sourceElement === document.body) $("#gone").hidden = false;
  });

  document.addEventListener("htmx:config:request", (event) => {
    const { body, method } = event.detail.ctx.request;
    if (method !== "GET" || !body) return;
    for (const [name, value] of [...body]) if (!value) body.delete(name); // short addresses
  });

  document.addEventListener("htmx:error", (event) => {
    if (!event.detail.ctx?.live && event.detail.ctx) say("Nexus does not answer. Try again when it is back.");
  });

  function follow() {
    let seq = Number(document.body.dataset.seq);
    let downSince = 0;
    let bannerTimer = 0;
    const banner = $("#offline");
    keepOpen("/ws/events", {
      greet() {
        const long = downSince && Date.now() - downSince > FORGET_AFTER;
        if (long) note(null);
        return long ? {} : { after: seq };
      },
      opened() {
        clearTimeout(bannerTimer);
        banner.hidden = true;
        downSince = 0;
        document.body.dataset.socket = "open";
      },
      closed(event) {
        delete document.body.dataset.socket;
        if (event.code === 4401) { location.reload(); return false; }
        if (downSince) return;
        downSince = Date.now();
        bannerTimer = setTimeout(() => { banner.hidden = false; }, OFFLINE_AFTER);
      },
      receive(event) {
        seq = Math.max(seq, event.seq);
        if (!event.subject) return;
        document.dispatchEvent(new CustomEvent("nexus:event", { detail: event }));
        const thing = event.subject.split(":")[0];
        const topics = [event.subject, thing.endsWith("s") ? thing : `${thing}s`, event.kind];
        if (event.kind !== "operation.progressed") topics.push("news");
        note(new Set(topics));
      },
    });
  }

  // Logs: a <pre data-log="/ws/…" data-offset="N"> grows at its end and stays there unless
  // the reader has scrolled up.

  function followLog(log) {
    let offset = Number(log.dataset.offset);
    const frame = log.closest("[data-log-frame]");
    const jump = $("[data-log-end]", frame);
    const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 24;
    const toEnd = () => { log.scrollTop = log.scrollHeight; };
    jump.addEventListener("click", () => { toEnd(); log.focus(); });
    log.addEventListener("scroll", () => { jump.hidden = atEnd(); }, { passive: true });
    toEnd();
    keepOpen(log.dataset.log, {
      greet: () => ({ after: offset }),
      opened: () => { frame.dataset.following = "yes"; },
      closed(event) {
        delete frame.dataset.following;
        return event.code < 4000;
      },
      receive(page) {
        offset = page.next;
        const stay = atEnd();
        $("[data-log-empty]", frame)?.remove();
        log.append(page.text);
        if (log.textContent.length > LOG_MOST) log.textContent = log.textContent.slice(-LOG_MOST / 2);
        if (stay) toEnd();
        jump.hidden = atEnd();
      },
    });
  }

  // Clocks: <time data-ago>, data-lasting and data-due go on; hovering shows the local time.

  const SECOND_UNITS = [[86_400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];

  function ago(seconds) {
    if (seconds < 10) return "just now";
    const unit = SECOND_UNITS.find(([length]) => seconds >= length);
    return unit ? `${Math.floor(seconds / unit[0])} ${unit[1]} ago` : `${seconds} s ago`;
  }

  function lasting(seconds) {
    const unit = SECOND_UNITS.find(([length]) => seconds >= length);
    if (!unit) return `${seconds} s`;
    const rest = Math.floor((seconds % unit[0]) / unit[2]);
    return `${Math.floor(seconds / unit[0])} ${unit[1]}${rest ? ` ${rest} ${unit[3]}` : ""}`;
  }

  function tick() {
    for (const time of $$("time[data-due]")) {
      time.textContent = `in ${lasting(Math.max(0, Math.floor((Date.parse(time.dateTime) - Date.now()) / 1000)))}`;
    }
    for (const time of $$("time[data-ago], time[data-lasting]")) {
      const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(time.dateTime)) / 1000));
      const text = "ago" in time.dataset ? ago(seconds) : lasting(seconds);
      if (time.textContent !== text) time.textContent = text;
      if (!time.dataset.local) {
        const local = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
        time.title = "ago" in time.dataset ? local : `since ${local}`;
        time.dataset.local = "yes";
      }
    }
  }

  // Notes in the corner

  function say(text) {
    const box = document.createElement("div");
    box.className = "note";
    box.setAttribute("role", "status");
    box.dataset.dismissAfter = "5000";
    const words = document.createElement("p");
    words.textContent = text;
    box.append(words);
    $("#toasts").append(box);
    armNotes();
  }

  function armNotes() {
    for (const box of $$("#toasts [data-dismiss-after]")) {
      if (box.armed) continue;
      box.armed = true;
      setTimeout(() => box.remove(), Number(box.dataset.dismissAfter));
    }
  }

  // Files: a <form data-upload> is sent so that its progress shows. The answer is the form
  // again, with what is wrong in it, or the address to go on to.

  function upload(form) {
    const state = $("[data-upload-state]", form);
    const [bar, words, button] = [$("progress", state), $("span", state), $("[type=submit]", form)];
    const request = new XMLHttpRequest();
    const settle = (text) => { state.hidden = !text; words.textContent = text; button.disabled = false; };
    request.upload.onprogress = ({ loaded, total }) => {
      bar.value = (100 * loaded) / total;
      words.textContent = loaded < total ? `${Math.floor(bar.value)} % sent` : "Sent. Nexus is checking it…";
    };
    request.onerror = () => settle("The upload broke off. Send it again.");
    request.onload = () => {
      const next = request.getResponseHeader("HX-Redirect");
      if (next) location.assign(next);
      else if (request.status === 422) { form.outerHTML = request.responseText; $("[aria-invalid]")?.focus(); }
      else settle($("p", new DOMParser().parseFromString(request.responseText, "text/html"))?.textContent ?? `Nexus answered ${request.status}.`);
    };
    request.open("POST", form.action);
    request.setRequestHeader("HX-Request", "true");
    request.setRequestHeader("HX-Target", `form#${form.id}`);
    request.send(new FormData(form));
    [state.hidden, button.disabled, words.textContent] = [false, true, "Sending…"];
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-upload]")) return;
    event.preventDefault();
    upload(event.target);
  });

  // Small manners of controls

  async function copy(button) {
    if (navigator.clipboard) await navigator.clipboard.writeText(button.dataset.copy);
    else { // plain HTTP from another machine: browsers offer only the old way
      getSelection().selectAllChildren(button.previousElementSibling);
      document.execCommand("copy");
    }
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1200);
  }

  function showTheme() {
    for (const button of $$("[data-theme-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.themeChoice === nexusTheme.get()));
    }
  }

  document.addEventListener("click", (event) => {
    const on = (selector) => event.target.closest?.(selector);
    const refused = on("[aria-disabled=true]");
    if (refused) { event.preventDefault(); event.stopImmediatePropagation(); say(refused.title); return; }
    for (const menu of $$("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
    if (on("[data-dismiss]")) on(".note").remove();
    else if (on("[data-copy]")) copy(on("[data-copy]"));
    else if (on("[data-theme-choice]")) { nexusTheme.set(on("[data-theme-choice]").dataset.themeChoice); showTheme(); }
    else if (on("[data-opens]")) { on("details.menu")?.removeAttribute("open"); document.getElementById(on("[data-opens]").dataset.opens).showModal(); }
    else if (on("[data-closes]")) on("dialog").close();
    else if (event.target.matches?.("dialog")) event.target.close(); // the backdrop
  }, true);

  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && event.target.closest?.("details.menu[open]");
    if (menu) { menu.open = false; $("summary", menu).focus(); }
    const typing = event.target.matches?.("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      const search = $(".list-search input");
      if (search) { event.preventDefault(); search.focus(); search.select(); }
    }
  });

  // A field with data-must-equal="hello" frees its form's button once the text is typed.
  function freeButtons() {
    for (const field of $$("[data-must-equal]")) {
      $("[data-freed]", field.form).disabled = field.value !== field.dataset.mustEqual;
    }
  }

  // What a button has fetched into the dialog of the page is shown, and gone when it closes.
  function showDialog({ target }) {
    const dialog = $("#dialog");
    if (target !== dialog && target !== "#dialog") return;
    for (const menu of $$("details.menu[open]")) menu.open = false;
    if (!dialog.open) dialog.showModal();
    $("[aria-invalid]", dialog)?.focus();
  }

  // What has the keyboard's focus keeps it while a request disables it. Where a swap takes it away,
  // a button in its place gets the focus, else what the page wants, else the first verb of the page.
  const USABLE = ".btn:not(:disabled, [aria-disabled=true])";
  let focused = null;

  function keepFocus() {
    if (!focused || document.activeElement !== document.body || focused.element.disabled) return;
    const { element, around } = focused;
    if (element.isConnected) return element.focus({ preventScroll: true });
    focused = null;
    const place = around.map((id) => document.getElementById(id)).find(Boolean);
    const next = place && $(USABLE, place);
    if (next) next.focus({ preventScroll: true });
    else if (document.dispatchEvent(new Event("nexus:focus-lost", { cancelable: true }))) {
      $(`.page-head-actions ${USABLE}`)?.focus({ preventScroll: true });
    }
  }

  document.addEventListener("pointerdown", () => { focused = null; }, true);
  document.addEventListener("focusin", ({ target }) => {
    const around = [];
    for (let it = target.parentElement; it; it = it.parentElement) if (it.id) around.push(it.id);
    focused = { element: target, around };
  });

  document.addEventListener("close", ({ target }) => { if (target.id === "dialog") target.replaceChildren(); }, true);
  document.addEventListener("input", freeButtons);
  document.addEventListener("htmx:after:swap", ({ detail }) => { tick(); armNotes(); freeButtons(); showDialog(detail.ctx); setTimeout(keepFocus); });
  document.addEventListener("htmx:finally:request", (event) => {
    const { ctx } = event.detail;
    const posted = ctx.request?.method === "POST" && ctx.response?.status < 400;
    if (posted) ctx.sourceElement.closest("dialog")?.close();
    setTimeout(keepFocus);
  });

  document.addEventListener("DOMContentLoaded", () => {
    showTheme();
    tick();
    armNotes();
    setInterval(tick, 1000);
    for (const log of $$("[data-log]")) followLog(log);
    for (const form of $$("form[data-submit-at-once]")) form.requestSubmit();
    if (document.body.dataset.seq) follow();
  });
})();
