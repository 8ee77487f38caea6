// The page of a VM's terminals: a tab for each session of its agent, and one for the console.
// A tab connects when it is first shown. terminal-screen.js draws, terminal-link.js connects,
// terminal-words.js says what is the matter.
(() => {
  "use strict";

  const FIT_AFTER = 80; // ms without a change of size
  const CONSOLE = "serial.console"; // no session can have this name
  const KILL_AFTER = 3000; // ms that a program has to end when its terminal goes
  const MODIFIERS = ["Shift", "Control", "Alt", "AltGraph", "Meta"];
  const KEYS = { escape: "\x1b", tab: "\t", left: "\x1b[D", down: "\x1b[B", up: "\x1b[A", right: "\x1b[C" };

  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  const root = $("#terminal");
  const row = $(".terminal-tabs", root);
  const panels = $(".terminal-panels", root);
  const find = $(".terminal-find", root);
  const closedKey = `nexus-closed:${root.dataset.sockets}`;
  const closed = new Set(JSON.parse(sessionStorage.getItem(closedKey) ?? "[]"));
  const tabs = new Map(); // by the session's id, in the order of the row
  let listed = []; // what the agent has, as the page was told last
  let wasReady = false;
  let first = true;

  function copyOf(id) { return document.getElementById(id).content.firstElementChild.cloneNode(true); }

  // As the other IDs: 13 letters for 63 bits.
  function newId() {
    const letters = crypto.getRandomValues(new Uint8Array(13)).map((value) => value & 31);
    letters[0] &= 15;
    letters[12] &= 30;
    return [...letters].map((value) => "abcdefghijklmnopqrstuvwxyz234567"[value]).join("");
  }

  class Tab {
    #link = null;
    #session; #old;
    #titled = false;
    screen = null;
    state = "";
    #detail = null;

    constructor(session, start = null) {
      this.#session = session;
      this.#old = session.size ?? 0; // what was written before this page looked
      this.start = start;
      this.holder = copyOf("terminal-tab");
      this.panel = copyOf("terminal-panel");
      this.button = $("[role=tab]", this.holder);
      this.note = $(".terminal-note", this.panel);
      [this.button.id, this.panel.id] = [`tab-${this.id}`, `panel-${this.id}`];
      this.button.setAttribute("aria-controls", this.panel.id);
      this.panel.setAttribute("aria-labelledby", this.button.id);
      this.know(session);
      if (session.over) this.holder.dataset.state = "ended";
      this.panel.hidden = true;
      row.append(this.holder);
      panels.append(this.panel);
      this.button.onclick = () => select(this.id);
      $("[data-do=close]", this.holder).onclick = () => this.askToClose();
      $("[data-do=again]", this.panel).onclick = newShell;
      $("[data-do=now]", this.panel).onclick = () => this.connect();
      $("[data-do=wake]", this.panel).onclick = () => { this.rouse(); this.screen.focus(); };
      $(".terminal-screen", this.panel).addEventListener("keydown", ({ key }) => MODIFIERS.includes(key) || this.rouse(), true);
      $(".terminal-screen", this.panel).addEventListener("click", () => this.screen.selection || this.rouse());
    }

    get id() { return this.#session.id; }
    get over() { return this.#link?.over ?? this.#session.over; }

    // What the agent says of it; the title that its program has set stays.
    know(session) {
      this.#session = session;
      this.button.title = session.command;
      if (!this.#titled) this.title("");
    }

    title(text) {
      this.#titled = Boolean(text);
      $(".terminal-name", this.holder).textContent = text || this.#session.name;
    }

    // Shown for the first time: only now there is a size to open a terminal with.
    open() {
      if (this.screen) return;
      this.screen = new NexusTerminalScreen($(".terminal-screen", this.panel), {
        typed: (bytes) => this.#link?.type(bytes),
        resized: (size) => this.#link?.resize(size),
        titled: (text) => this.title(text),
        selected: showTools,
        key: onKey,
      });
      this.screen.results(({ resultIndex, resultCount }) => {
        $("output", find).value = resultCount ? `${resultIndex + 1} of ${resultCount}` : "nothing";
      });
      let taken = 0;
      this.#link = new NexusTerminalLink(root.dataset.sockets + this.id, this.start, {
        size: () => this.screen.size,
        mayTry: () => NexusTerminalVM.ready,
        draw: (bytes, drawn) => {
          this.screen.draw(bytes, { old: taken < this.#old }, drawn);
          taken += bytes.length;
        },
        skip: (count) => { taken += count; this.screen.skip(count); },
        attached: ({ tty, stdin }) => { this.screen.lineEnds = tty; this.screen.input = stdin; },
        told: (state, detail) => this.#say(state, detail),
      });
    }

    connect() { this.#link?.connect(); }

    // By a person's hand: a VM that is asleep wakes.
    rouse() { if (this.state === "asleep") this.#link.wake(); }

    // The VM is in another state than it was: what is said of it may be another thing.
    look() { if (["waiting", "asleep"].includes(this.state)) this.#say("waiting", null); }
    drop() { this.#link?.drop(); }

    // The guest has answered, and does not know it.
    lose() { if (this.#link?.begun) this.#link.lose(); }

    #say(told, detail) {
      const state = told === "waiting" && NexusTerminalVM.asleep ? "asleep" : told;
      if (state === this.state && state === "asleep") detail ??= this.#detail;
      this.#detail = detail;
      this.state = this.holder.dataset.state = this.panel.dataset.state = state;
      const text = NexusTerminalWords(state, detail);
      $("span", this.note).textContent = text;
      this.note.hidden = !text;
      $("[data-do=again]", this.note).hidden = !["ended", "gone", "refused"].includes(state);
      $("[data-do=now]", this.note).hidden = state !== "lost";
      $("[data-do=wake]", this.note).hidden = state !== "asleep";
    }

    async askToClose() {
      if (this.over) return this.close();
      const dialog = $("#close-dialog");
      $("[data-command]", dialog).textContent = this.#session.command;
      dialog.returnValue = "";
      dialog.showModal();
      await new Promise((settled) => dialog.addEventListener("close", settled, { once: true }));
      if (dialog.returnValue === "end") this.#endProgram();
      else if (dialog.returnValue === "detach") this.close();
      else this.screen?.focus();
    }

    // As when a terminal's window is closed; what does not end by that is killed.
    #endProgram() {
      select(this.id);
      this.#link.signal("HUP");
      setTimeout(() => { if (!this.over) this.#link.signal("KILL"); }, KILL_AFTER);
    }

    close() {
      this.#link?.close();
      this.screen?.dispose();
      this.holder.remove();
      this.panel.remove();
      tabs.delete(this.id);
      remember(this.id, true);
      if (current() === this.id) select([...tabs.keys()].at(-1) ?? CONSOLE);
      showClosed();
    }
  }

  // Tabs

  const buttons = () => $$("[role=tab]", row);
  const current = () => $("[role=tab][aria-selected=true]", row)?.id.slice("tab-".length) ?? "";
  const shownTab = () => tabs.get(current());

  // `asked`: by a person, so that a reload shows it again.
  function select(id, { focus = true, asked = true } = {}) {
    for (const button of buttons()) {
      const chosen = button.id === `tab-${id}`;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
      document.getElementById(button.getAttribute("aria-controls")).hidden = !chosen;
      if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    if (asked) history.replaceState(history.state, "", `#${id}`);
    const tab = tabs.get(id);
    root.dataset.shows = tab ? "session" : "console";
    tab?.open();
    tab?.screen.fit();
    if (!tab) $("#console").scrollTop = $("#console").scrollHeight;
    if (focus) (tab?.screen ?? $("#console")).focus();
    showTools();
  }

  function step(by) {
    const all = buttons();
    const at = all.findIndex((button) => button.getAttribute("aria-selected") === "true");
    return all[(at + by + all.length) % all.length].id.slice("tab-".length);
  }

  function add(session, start) {
    tabs.set(session.id, new Tab(session, start));
    return session.id;
  }

  function newShell() {
    select(add({ id: newId(), name: "shell", command: "The shell" }, { shell: true }));
  }

  function remember(id, isClosed) {
    if (isClosed) closed.add(id);
    else closed.delete(id);
    sessionStorage.setItem(closedKey, JSON.stringify([...closed]));
  }

  // Sessions without a tab can be opened again.
  function showClosed() {
    const menu = $("[data-closed]", root);
    if (!menu) return;
    const waiting = listed.filter(({ id }) => !tabs.has(id));
    menu.hidden = !waiting.length;
    $(".menu-list", menu).replaceChildren(...waiting.map((session) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = session.command;
      button.onclick = () => { menu.open = false; remember(session.id, false); select(add(session)); showClosed(); };
      return button;
    }));
  }

  // What the page is told of the VM and its sessions; again whenever something has happened to it.
  function follow() {
    const { ready } = NexusTerminalVM;
    const told = JSON.parse($("#vms-terminal_state").dataset.sessions);
    if (told) listed = told;
    for (const session of told ?? []) {
      if (tabs.has(session.id)) tabs.get(session.id).know(session);
      else if (!closed.has(session.id)) add(session);
    }
    showClosed();
    $("[data-do=new]", root)?.toggleAttribute("disabled", !ready);
    if (ready !== wasReady) turn(ready, told);
    for (const tab of tabs.values()) tab.look();
    [wasReady, first] = [ready, false];
  }

  function turn(ready, told) {
    for (const tab of tabs.values()) {
      if (ready && told && !told.some(({ id }) => id === tab.id)) tab.lose();
      else tab.connect();
    }
    if (ready) greet();
  }

  // The VM is ready: show a session that goes on, or a new shell where there is none.
  function greet() {
    if (!$("[data-do=new]", root)) return;
    const going = [...tabs.values()].filter((tab) => !tab.over);
    const wanted = location.hash.slice(1);
    if (wanted === CONSOLE && (first || going.length)) select(CONSOLE);
    else if (!going.length && !(first && tabs.has(wanted))) newShell();
    else if (!going.some((tab) => tab.id === current())) {
      select(tabs.has(wanted) ? wanted : going.at(-1).id);
    }
  }

  // Tools

  function showTools() {
    const { screen } = shownTab() ?? {};
    const copy = $("[data-do=copy]", root);
    if (copy) copy.disabled = !screen?.selection;
    $("[data-key=ctrl]", root).setAttribute("aria-pressed", String(screen?.ctrl ?? false));
  }

  function openFind() {
    find.hidden = false;
    $("input", find).value = shownTab().screen.selection.split("\n")[0] || $("input", find).value;
    $("input", find).select();
    $("input", find).focus();
  }

  function closeFind() {
    find.hidden = true;
    $("output", find).value = "";
    shownTab()?.screen.stopFinding();
  }

  function search(options) {
    const text = $("input", find).value;
    if (text) shownTab()?.screen.find(text, options);
  }

  function resizeText(by) {
    NexusTerminalScreen.setFontSize(NexusTerminalScreen.fontSize + by);
    for (const { screen } of tabs.values()) screen?.dress();
  }

  function fill() {
    const full = root.classList.toggle("terminal-full");
    $("[data-do=fill]", root).setAttribute("aria-pressed", String(full));
    shownTab()?.screen.focus();
  }

  const tools = {
    new: newShell,
    find: openFind,
    found: closeFind,
    previous: () => search({ back: true }),
    copy: () => shownTab()?.screen.copy(),
    paste: async () => {
      const text = await navigator.clipboard.readText();
      shownTab()?.rouse();
      shownTab()?.screen.paste(text);
    },
    smaller: () => resizeText(-1),
    larger: () => resizeText(1),
    fill,
  };

  // Keys of the page: all others are the terminal's. Ctrl+Shift+V is the browser's own.
  const shortcuts = {
    KeyC: () => tools.copy(),
    KeyF: () => openFind(),
    ArrowLeft: () => select(step(-1)),
    ArrowRight: () => select(step(1)),
    ArrowUp: () => $("[role=tab][aria-selected=true]", row).focus(),
  };

  function onKey(event) {
    if (!event.ctrlKey || !event.shiftKey || event.altKey) return true;
    if (event.code === "KeyV") return false;
    const act = shortcuts[event.code];
    if (!act) return true;
    event.preventDefault();
    if (event.type === "keydown") act();
    return false;
  }

  function press(key) {
    const tab = shownTab();
    if (!tab) return;
    if (key === "ctrl") { tab.screen.ctrl = !tab.screen.ctrl; tab.screen.focus(); }
    else {
      tab.rouse();
      tab.screen.press(KEYS[key]);
    }
    showTools();
  }

  root.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button || button.disabled) return;
    if (button.dataset.key) press(button.dataset.key);
    else if (!button.closest(".terminal-tab, .terminal-note")) tools[button.dataset.do]?.();
  });

  document.getElementById(`tab-${CONSOLE}`).addEventListener("click", () => select(CONSOLE));

  row.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !event.target.matches("[role=tab]")) return;
    select(step(by), { focus: false });
    $("[role=tab][aria-selected=true]", row).focus();
  });

  find.addEventListener("submit", (event) => { event.preventDefault(); search(); });
  find.addEventListener("input", () => search({ incremental: true }));
  find.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeFind();
    else if (event.key === "Enter" && event.shiftKey) { event.preventDefault(); search({ back: true }); }
  });

  let fitTimer = 0;
  new ResizeObserver(() => {
    clearTimeout(fitTimer);
    fitTimer = setTimeout(() => shownTab()?.screen?.fit(), FIT_AFTER);
  }).observe(panels);
  new MutationObserver(() => { for (const { screen } of tabs.values()) screen?.dress(); })
    .observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  // A keyboard on the screen covers the page without making it smaller.
  visualViewport?.addEventListener("resize", () => root.style.setProperty("--terminal-room", `${visualViewport.height}px`));

  const connectAll = () => { for (const tab of tabs.values()) tab.connect(); };
  addEventListener("online", connectAll);
  addEventListener("offline", () => { for (const tab of tabs.values()) tab.drop(); });
  document.addEventListener("visibilitychange", () => document.hidden || connectAll());
  document.addEventListener("htmx:after:swap", follow);
  document.addEventListener("nexus:focus-lost", (event) => {
    if (shownTab()) { event.preventDefault(); shownTab().screen?.focus(); }
  });
  if (!navigator.clipboard?.readText) $("[data-do=paste]", root)?.remove(); // browsers refuse it

  root.dataset.shows = "console";
  follow();
  if (!wasReady) select(CONSOLE, { focus: false, asked: false });
})();
