// Charts of what a VM uses. The page comes with its data and its numbers; with each heartbeat of
// the VM, but not more often than a point stands for, they are asked for again.
(() => {
  "use strict";

  const HEIGHT = 184; // px
  const GAP = 1000; // ms between two questions at least

  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Numbers as the server writes them (templates/vms/metric.html).

  function size(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    while (Math.abs(value) >= 1024 && units.length > 1) { value /= 1024; units.shift(); }
    const text = value >= 100 || units[0] === "B" ? value.toFixed(0) : value.toFixed(1);
    return `${text.replace(/\.0$/, "")} ${units[0]}`;
  }

  const UNITS = {
    share: { words: (value) => `${Math.round(value * 100)} %`, most: () => 1 },
    processors: { words: (value) => value.toFixed(2), most: (top) => Math.max(top * 1.1, 1) },
    bytes: { words: size, most: (top) => top * 1.1 || 1, binary: true },
    rate: { words: (value) => `${size(value)}/s`, most: (top) => Math.max(top * 1.1, 1024), binary: true },
  };
  const inWords = (unit, value) => (value === null || value === undefined ? "–" : UNITS[unit].words(value));
  const POWERS_OF_TWO = Array.from({ length: 50 }, (_, power) => 2 ** power);

  // Times

  const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
  const seconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

  function ticks(_, splits, __, ___, step) {
    let before = "";
    return splits.map((at) => {
      const time = new Date(at * 1000);
      const date = day.format(time);
      const shown = date === before ? "" : `\n${date}`;
      before = date;
      return step >= 86_400 ? date : (step < 60 ? seconds : clock).format(time) + shown;
    });
  }

  function moment(at) {
    const time = new Date(at * 1000);
    return shown.to - shown.from > 86_400 ? `${day.format(time)} ${clock.format(time)}` : seconds.format(time);
  }

  // Colours: a canvas knows no variables, so an element is asked what they come to.

  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;
  function colour(css) {
    probe.style.color = css;
    return getComputedStyle(probe).color;
  }
  const faded = (css) => `color-mix(in oklab, ${css} 13%, transparent)`;

  // Charts

  const root = $("#charts");
  let shown = read(JSON.parse($("#metrics").textContent));
  const looks = shown.colours;
  const charts = [];

  function read(answer) {
    const epoch = (text) => Date.parse(text) / 1000;
    const transitions = answer.transitions.map((move) => ({ ...move, at: epoch(move.at) }));
    return { ...answer, at: answer.at.map(epoch), from: epoch(answer.from), to: epoch(answer.to), transitions };
  }

  const columnsOf = (plot) => plot.dataset.columns.trim().split(" ");
  const dataOf = (plot) => [shown.at, ...columnsOf(plot).map((name) => shown[name])];
  const stateColour = (state) => (looks[state] === "secondary" ? "var(--tblr-secondary)" : `var(--tblr-${looks[state]})`);

  function drawMarks(chart) {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const move of shown.transitions) {
      const x = Math.round(chart.valToPos(move.at, "x", true));
      ctx.strokeStyle = colour(stateColour(move.to_state));
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  function options(plot) {
    const unit = UNITS[plot.dataset.unit];
    const faint = () => colour("var(--nx-faint)");
    const lines = { stroke: () => colour("var(--nx-line)"), width: 1 };
    const axis = { stroke: faint, grid: lines, ticks: { ...lines, size: 4 }, font: "11px system-ui, sans-serif" };
    const series = columnsOf(plot).map((_, index) => ({
      stroke: () => colour(`var(--chart-${index + 1})`),
      fill: index ? undefined : () => colour(faded("var(--chart-1)")),
      width: 1.5,
      points: { show: false },
    }));
    return {
      width: plot.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "metrics" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { range: () => [shown.from, shown.to] },
        y: { range: (_, __, top) => [0, unit.most(top ?? 0)] },
      },
      axes: [
        { ...axis, values: ticks, size: 38, space: 70 },
        { ...axis, values: (_, splits) => splits.map(unit.words), size: 68, space: 34, ...(unit.binary ? { incrs: POWERS_OF_TWO } : {}) },
      ],
      series: [{}, ...series],
      hooks: { drawAxes: [drawMarks], setCursor: [(chart) => showNumbers(plot, chart.cursor.idx)] },
    };
  }

  // The table below a chart: how things are now, or were where the pointer is.

  function showNumbers(plot, index) {
    const card = plot.closest(".chart");
    const pointed = index !== null && index !== undefined;
    const heading = $("[data-when]", card);
    heading.textContent = pointed ? moment(shown.at[index]) : heading.dataset.when;
    for (const name of columnsOf(plot)) {
      for (const [kind, value] of Object.entries(shown.summary[name])) {
        const cell = $(`[data-value="${name} ${kind}"]`, card);
        cell.textContent = inWords(plot.dataset.unit, kind === "now" && pointed ? shown[name][index] : value);
      }
    }
  }

  function showLegend() {
    const counts = new Map();
    for (const { to_state: state } of shown.transitions) counts.set(state, (counts.get(state) ?? 0) + 1);
    $("#marks").replaceChildren(...[...counts].map(([state, count]) => {
      const item = document.createElement("li");
      item.style.setProperty("--c", stateColour(state));
      item.textContent = count > 1 ? `${state} × ${count}` : state;
      return item;
    }));
  }

  function draw() {
    const empty = !shown.at.length;
    root.hidden = empty;
    $("#no-metrics").hidden = !empty;
    if (empty) return;
    for (const plot of $$(".chart-plot", root)) {
      if (plot.chart) plot.chart.setData(dataOf(plot));
      else if (window.uPlot) {
        plot.chart = new uPlot(options(plot), dataOf(plot), plot);
        charts.push(plot.chart);
        new ResizeObserver(() => plot.chart.setSize({ width: plot.clientWidth, height: HEIGHT })).observe(plot);
      }
      showNumbers(plot, plot.chart?.cursor.idx);
    }
    showLegend();
  }

  // Live

  let asked = Date.now();
  let asking = false;

  async function ask() {
    if (asking) return;
    asking = true;
    asked = Date.now();
    const from = new Date(asked - Number(root.dataset.seconds) * 1000).toISOString();
    try {
      const query = new URLSearchParams({ from, points: root.dataset.points });
      const response = await fetch(`${root.dataset.url}?${query}`);
      if (response.ok) { shown = read(await response.json()); draw(); }
    } catch { /* the page says by itself that Nexus does not answer */ }
    asking = false;
  }

  document.addEventListener("nexus:event", ({ detail }) => {
    const due = Date.now() - asked >= Math.max(GAP, shown.step_seconds * 1000);
    const moved = detail.subject === `vm:${root.dataset.vm}` && detail.kind === "vm.moved";
    if (moved || (due && detail.subject === `heartbeat:${root.dataset.vm}`)) ask();
  });
  new MutationObserver(() => { for (const chart of charts) chart.redraw(false); })
    .observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  draw();
})();
