// Draws the charts that the page carries as JSON (sim/chart.h has the meaning of each field), switches between
// light and dark, sorts tables and saves the numbers.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  // The smallest and the largest value of an axis ("x" or "y").
  function extent(chart, letter) {
    const guides = chart.guides.filter((g) => g.vertical === (letter === "x")).map((g) => g.value);
    const values = chart.series.flatMap((s) => s[letter]).concat(guides);
    return [Math.min(...values), Math.max(...values)];
  }

  // 1, 2 or 5 times a power of ten, about `count` of them to the range.
  function roundStep(range, count) {
    const power = 10 ** Math.floor(Math.log10(range / count));
    return [1, 2, 5, 10].find((f) => f * power >= range / count) * power;
  }

  // Powers of ten, with twice and five times them where those are few; round numbers where even those are.
  function logTicks([low, high]) {
    if (high / low < 8) {
      const step = roundStep(high - low || high, 6);
      const first = Math.max(1, Math.floor(low / step) - 1);
      return Array.from({ length: 12 }, (_, i) => (first + i) * step);
    }
    const decades = Math.log10(high / low);
    const factors = decades > 2.5 ? [1] : [1, 2, 5];
    const ticks = [];
    for (let e = Math.floor(Math.log10(low)) - 1; e <= Math.ceil(Math.log10(high)) + 1; e += decades > 8 ? 2 : 1)
      for (const f of factors) ticks.push(f * 10 ** e);
    return ticks;
  }

  const prefixes = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  function short(value) {
    const [unit, prefix] = value >= 1e4 ? prefixes.find(([u]) => value >= u) : [1, ""];
    return String(+(value / unit).toPrecision(3)) + prefix;
  }

  function axis(chart, letter) {
    const a = chart[letter];
    const out = {
      title: { text: a.title, standoff: 10 },
      automargin: true,
      gridcolor: colour("rule"),
      zerolinecolor: colour("rule"),
      linecolor: colour("soft"),
      ticks: "outside",
      tickcolor: colour("rule"),
      nticks: window.innerWidth < 700 ? 6 : 10,
      showline: letter === "x",
    };
    if (a.categories.length)
      return { ...out, tickvals: a.categories.map((_, i) => i), ticktext: a.categories, showgrid: false, zeroline: false, ticks: "" };
    const [low, high] = extent(chart, letter);
    if (a.log) {
      const ticks = logTicks([low, high]);
      Object.assign(out, { type: "log", tickvals: ticks, ticktext: ticks.map(short) });
    }
    const bound = (v) => (a.log ? Math.log10(v) : v);
    const margin = 0.05 * (bound(a.max ?? high) - bound(a.min ?? low) || 1);
    const labels = letter === "x" && chart.y.categories.length > 1 && chart.series.some((s) => s.labelled);
    if (labels) {
      const [least, most] = [Math.min(low, 0), Math.max(high, 0)];
      const room = 0.3 * (most - least || 1);
      out.range = [least < 0 ? least - room : 0, most > 0 ? most + room : 0];
    } else if (a.min !== undefined || a.max !== undefined) {
      out.range = [a.min !== undefined ? bound(a.min) : bound(low) - margin, a.max !== undefined ? bound(a.max) : bound(high) + margin];
    }
    return out;
  }

  function barTrace(s, chart, paint, out) {
    const horizontal = chart.y.categories.length > 0;
    return {
      ...out,
      type: "bar",
      orientation: horizontal ? "h" : "v",
      marker: { color: paint },
      text: s.labelled ? s.notes : undefined,
      hovertext: s.notes,
      hovertemplate: out.hovertemplate.replace("%{text}", "%{hovertext}"),
      textposition: s.labelled ? (chart.y.categories.length === 1 ? "inside" : "outside") : "none",
      textangle: 0,
      insidetextanchor: "middle",
      constraintext: "none",
      cliponaxis: false,
      textfont: { size: 12 },
    };
  }

  function trace(s, i, chart) {
    const paint = colour(s.colour === "series" ? "series-" + (i % 8) : s.colour);
    const values = ["x", "y"].filter((l) => !chart[l].categories.length).map((l) => chart[l].title + ": %{" + l + ":,.4~g}");
    const out = {
      name: s.name,
      x: s.x,
      y: s.y,
      text: s.notes,
      hovertemplate: (s.notes.length ? "%{text}<br>" : "") + values.join("<br>") + "<extra>" + s.name + "</extra>",
      showlegend: s.name !== "",
    };
    if (s.mark === "bars") return barTrace(s, chart, paint, out);
    const mode = { points: "markers", highlights: "markers", "line+points": "lines+markers", labels: "text" }[s.mark] || "lines";
    const highlight = s.mark === "highlights";
    const size = highlight ? 13 : s.x.length > 1000 ? 4 : s.x.length > 60 ? 5 : 8;
    return {
      ...out,
      type: "scatter",
      mode: mode + (s.labelled && s.mark !== "labels" ? "+text" : ""),
      line: { color: paint, width: 2.2, dash: s.dashed ? "dash" : "solid", shape: s.mark === "steps" ? "hv" : "linear" },
      marker: { color: paint, size, opacity: size < 5 ? 0.5 : 0.9, symbol: highlight ? "diamond" : "circle", line: { color: colour("paper"), width: highlight ? 2 : 0 } },
      textposition: s.x.map((_, k) => (k % 2 ? "bottom center" : "top center")),
      textfont: { size: 11, color: colour("ink") },
      hoverinfo: s.mark === "labels" ? "skip" : undefined,
      cliponaxis: s.mark !== "labels",
    };
  }

  function guideLine(g) {
    const [along, across] = g.vertical ? ["x", "y"] : ["y", "x"];
    return {
      type: "line",
      [along + "0"]: g.value,
      [along + "1"]: g.value,
      [across + "ref"]: "paper",
      [across + "0"]: 0,
      [across + "1"]: 1,
      line: { color: colour("bad"), width: 1.5, dash: "dot" },
    };
  }

  function guideLabel(g, chart) {
    const letter = g.vertical ? "x" : "y";
    const bound = (v) => (chart[letter].log ? Math.log10(v) : v);
    const [low, high] = extent(chart, letter).map(bound);
    const far = bound(g.value) > (low + high) / 2;
    const place = g.vertical ? { y: 0.94, yref: "paper", xanchor: far ? "right" : "left", yanchor: "top" } : { x: 1, xref: "paper", xanchor: "right", yanchor: "bottom" };
    return { ...place, [letter]: bound(g.value), text: g.label, showarrow: false, font: { color: colour("bad"), size: 12 }, bgcolor: colour("paper"), opacity: 0.9 };
  }

  function draw(chart) {
    const element = document.getElementById(chart.id);
    const rows = chart.y.categories.length;
    const named = chart.series.filter((s) => s.name).length;
    const layout = {
      autosize: true,
      margin: { l: 56, r: 18, t: 30, b: 48 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") },
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("rule"), font: { color: colour("ink") } },
      hovermode: "closest",
      barmode: chart.stacked ? "stack" : "group",
      bargap: rows ? 0.25 : 0.12,
      xaxis: axis(chart, "x"),
      yaxis: axis(chart, "y"),
      showlegend: named > 1,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal", itemsizing: chart.series.some((s) => s.mark === "points" && s.x.length > 400) ? "constant" : "trace", font: { size: 12 } },
      shapes: chart.guides.map(guideLine),
      annotations: chart.guides.map((g) => guideLabel(g, chart)),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("ink") },
    };
    if (rows) layout.yaxis.range = [rows - 0.5, -0.5]; // the first on top
    Plotly.react(element, chart.series.map((s, i) => trace(s, i, chart)), layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: "hover",
      showSendToCloud: false,
      plotlyServerURL: "",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      toImageButtonOptions: { format: "png", filename: chart.id, scale: 2 },
    });
  }

  function setTheme(dark) {
    root.dataset.theme = dark ? "dark" : "light";
    document.getElementById("theme").textContent = dark ? "Light" : "Dark";
    charts.forEach(draw);
  }

  function sortBy(header) {
    const table = header.closest("table");
    const column = [...header.parentNode.children].indexOf(header);
    const descending = header.ariaSort === "ascending";
    for (const other of header.parentNode.children) other.ariaSort = null;
    header.ariaSort = descending ? "descending" : "ascending";
    const key = (row) => row.children[column].textContent;
    const number = (text) => parseFloat(text.replaceAll(",", ""));
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const difference = number(key(a)) - number(key(b));
      return (Number.isNaN(difference) ? key(a).localeCompare(key(b)) : difference) * (descending ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }

  for (const header of document.querySelectorAll("th")) header.addEventListener("click", () => sortBy(header));
  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));
  document.getElementById("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([document.getElementById("result").textContent], { type: "application/json" }));
    link.download = "result.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", () => setTheme(system.matches));
  window.addEventListener("beforeprint", () => setTheme(false));
  setTheme(system.matches);
})();
