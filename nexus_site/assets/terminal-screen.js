// One screen: xterm.js with the dashboard's colours and manners. All that a guest writes is data:
// xterm draws it, and it can neither reach the clipboard nor make links.
(() => {
  "use strict";

  const FONT_KEY = "nexus-terminal-font";
  const [FONT_LEAST, FONT_USUAL, FONT_MOST] = [9, 13, 24];
  const SCROLLBACK = 10_000; // lines
  const TITLE_MOST = 40; // characters
  const IGNORED_OSC = [8, 52]; // hyperlinks, the clipboard
  const CAN = "\x18"; // ends an escape sequence of which the rest is missing
  const SIZES = ["bytes", "KiB", "MiB", "GiB", "TiB"];

  const THEMES = {
    dark: {
      background: "#0b0e13", foreground: "#d3dae3", cursor: "#d3dae3", cursorAccent: "#0b0e13", selectionBackground: "#33507c",
      black: "#1c2128", red: "#ff7b72", green: "#56d364", yellow: "#e3b341", blue: "#6cb6ff", magenta: "#d2a8ff", cyan: "#56d4dd", white: "#cdd5df",
      brightBlack: "#768390", brightRed: "#ffa198", brightGreen: "#7ee787", brightYellow: "#f2cc60", brightBlue: "#96d0ff", brightMagenta: "#e2c5ff", brightCyan: "#83e4ea", brightWhite: "#f6f8fa",
    },
    light: {
      background: "#ffffff", foreground: "#1f2733", cursor: "#1f2733", cursorAccent: "#ffffff", selectionBackground: "#b6d4fb",
      black: "#24292f", red: "#cf222e", green: "#116329", yellow: "#7d4e00", blue: "#0757b5", magenta: "#7b3fc4", cyan: "#136e75", white: "#6e7781",
      brightBlack: "#57606a", brightRed: "#a40e26", brightGreen: "#1a7f37", brightYellow: "#633c01", brightBlue: "#0969da", brightMagenta: "#8250df", brightCyan: "#1b7c83", brightWhite: "#424a53",
    },
  };
  const FOUND = {
    dark: { matchBackground: "#5c4a12", activeMatchBackground: "#a3690b", matchOverviewRuler: "#e3b341", activeMatchColorOverviewRuler: "#ffb454" },
    light: { matchBackground: "#fbe39a", activeMatchBackground: "#ffb454", matchOverviewRuler: "#bf8700", activeMatchColorOverviewRuler: "#cf222e" },
  };

  const encoder = new TextEncoder();
  const theme = () => (document.documentElement.dataset.bsTheme === "dark" ? "dark" : "light");

  // Letters and marks alone: nothing that controls or turns text round, and not too long.
  const shown = (text) => text.replace(/\p{C}/gu, "").trim().slice(0, TITLE_MOST);

  function sized(count) {
    const step = Math.min(Math.floor(Math.log2(Math.max(count, 1)) / 10), SIZES.length - 1);
    return `${(count / 1024 ** step).toFixed(step ? 1 : 0)} ${SIZES[step]}`;
  }

  // `page`: `typed(bytes)`, `resized({rows, cols})`, `titled(text)`, `selected()`, and `key(event)`,
  // which returns false for keys that are the page's.
  class TerminalScreen {
    #terminal; #page;
    #fit = new FitAddon.FitAddon();
    #search = new SearchAddon.SearchAddon();
    #replayed = 0; // pieces of old output that are being drawn
    ctrl = false; // the next key is typed as with Ctrl

    constructor(parent, page) {
      this.#page = page;
      this.#terminal = new Terminal({
        allowProposedApi: true, // what marks what the search has found
        cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
        fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--tblr-font-monospace") || "monospace",
        fontSize: TerminalScreen.fontSize,
        macOptionIsMeta: true,
        minimumContrastRatio: 4.5,
        scrollback: SCROLLBACK,
        theme: THEMES[theme()],
      });
      this.#terminal.loadAddon(this.#fit);
      this.#terminal.loadAddon(this.#search);
      for (const code of IGNORED_OSC) this.#terminal.parser.registerOscHandler(code, () => true);
      this.#terminal.attachCustomKeyEventHandler((event) => page.key(event));
      this.#terminal.onData((text) => this.#type(encoder.encode(this.#withCtrl(text))));
      this.#terminal.onBinary((text) => this.#type(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
      this.#terminal.onResize(({ rows, cols }) => page.resized({ rows, cols }));
      this.#terminal.onTitleChange((text) => page.titled(shown(text)));
      this.#terminal.onSelectionChange(() => page.selected());
      this.#terminal.open(parent);
      this.fit();
    }

    static get fontSize() { return Number(localStorage.getItem(FONT_KEY)) || FONT_USUAL; }

    static setFontSize(size) {
      localStorage.setItem(FONT_KEY, String(Math.min(Math.max(size, FONT_LEAST), FONT_MOST)));
    }

    get size() { return { rows: this.#terminal.rows, cols: this.#terminal.cols }; }
    get selection() { return this.#terminal.getSelection(); }
    get results() { return this.#search.onDidChangeResults; }

    // Old output asks what a terminal is and can, as it did when it was new; the answers would now
    // be typed at whatever runs.
    draw(bytes, { old }, drawn) {
      if (old) this.#replayed += 1;
      this.#terminal.write(bytes, () => { if (old) this.#replayed -= 1; drawn(); });
    }

    skip(count) {
      this.#terminal.write(`${CAN}\r\n\x1b[0;2m[${sized(count)} left out]\x1b[0m\r\n`);
    }

    // A terminal makes its own line ends; what other programs write has newlines alone.
    set lineEnds(tty) { this.#terminal.options.convertEol = !tty; }
    set input(takes) { this.#terminal.options.disableStdin = !takes; }

    fit() {
      const wanted = this.#fit.proposeDimensions();
      if (wanted?.rows > 0 && wanted.cols > 0) this.#fit.fit();
    }

    dress() {
      Object.assign(this.#terminal.options, { theme: THEMES[theme()], fontSize: TerminalScreen.fontSize });
      this.fit();
    }

    find(text, { back = false, incremental = false } = {}) {
      const options = { incremental: incremental && !back, decorations: FOUND[theme()] };
      if (back) this.#search.findPrevious(text, options);
      else this.#search.findNext(text, options);
    }

    stopFinding() {
      this.#search.clearDecorations();
      this.focus();
    }

    async copy() {
      if (navigator.clipboard) await navigator.clipboard.writeText(this.selection);
      else { // plain HTTP from another machine: browsers offer only the old way
        this.focus();
        document.execCommand("copy");
      }
    }

    paste(text) { this.#terminal.paste(text); }
    press(keys) {
      const letter = this.#terminal.modes.applicationCursorKeysMode ? "O" : "[";
      this.#terminal.input(keys.replace("\x1b[", `\x1b${letter}`));
      this.focus();
    }
    focus() { this.#terminal.focus(); }
    dispose() { this.#terminal.dispose(); }

    #type(bytes) { if (!this.#replayed) this.#page.typed(bytes); }

    #withCtrl(text) {
      if (!this.ctrl || text.length !== 1) return text;
      this.ctrl = false;
      this.#page.selected();
      return String.fromCharCode(text.toUpperCase().charCodeAt(0) & 0x1f);
    }
  }

  window.NexusTerminalScreen = TerminalScreen;
})();
