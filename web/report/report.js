// Draws the charts that the page carries as JSON (sim/chart.h has the meaning of each field), switches between light and
// dark, sorts tables and saves the numbers.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement;
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const narrow = () => window.innerWidth < 700;

  // The decades that a log axis spans.
  function decades(chart, letter) {
    const values = chart.series.flatMap((s) => s[letter]);
    return Math.log10(Math.max(...values) / Math.min(...values));
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
      nticks: narrow() ? 6 : 10,
      showline: letter === "x",
    };
    if (a.categories.length) {
      Object.assign(out, { tickmode: "array", tickvals: a.categories.map((_, i) => i), ticktext: a.categories, showgrid: false, zeroline: false, ticks: "" });
    } else if (a.log) {
      Object.assign(out, { type: "log", exponentformat: "SI", dtick: decades(chart, letter) > 1.5 ? 1 : "D2" });
    }
    const bound = (v) => (a.log ? Math.log10(v) : v);
    if (a.min !== undefined && a.max !== undefined) out.range = [bound(a.min), bound(a.max)];
    else if (a.min !== undefined) Object.assign(out, { autorangeoptions: { minallowed: bound(a.min) }, rangemode: a.min === 0 ? "tozero" : "normal" });
    return out;
  }

  function trace(s, i, chart) {
    const paint = colour(s.colour === "series" ? "series-" + (i % 8) : s.colour);
    const horizontal = s.mark === "bars" && chart.y.categories.length > 0;
    const shown = s.notes.length ? "%{text}<br>" : "";
    const value = (a, letter) => (a.categories.length ? "" : "%{" + letter + ":.4~g}");
    const values = [[chart.x, "x"], [chart.y, "y"]].map(([a, l]) => (value(a, l) ? a.title + ": " + value(a, l) : "")).filter(Boolean);
    const out = {
      name: s.name,
      x: s.x,
      y: s.y,
      text: s.notes,
      hovertemplate: shown + values.join("<br>") + "<extra>" + s.name + "</extra>",
      showlegend: s.name !== "",
    };
    if (s.mark === "bars") {
      return Object.assign(out, {
        type: "bar",
        orientation: horizontal ? "h" : "v",
        marker: { color: paint },
        text: s.labelled ? s.notes : undefined,
        textposition: s.labelled ? "outside" : "none",
        cliponaxis: false,
        hovertext: s.notes,
        hovertemplate: out.hovertemplate.replace("%{text}", "%{hovertext}"),
      });
    }
    return Object.assign(out, {
      type: "scatter",
      mode: (s.mark === "points" ? "markers" : s.mark === "line+points" ? "lines+markers" : "lines") + (s.labelled ? "+text" : ""),
      line: { color: paint, width: 2.2, dash: s.dashed ? "dash" : "solid", shape: s.mark === "steps" ? "hv" : "linear" },
      marker: { color: paint, size: s.x.length > 400 ? 4 : 8, opacity: s.x.length > 400 ? 0.55 : 0.9, line: { width: 0 } },
      textposition: "top center",
      textfont: { size: 11, color: colour("ink") },
    });
  }

  function guide(g) {
    const side = g.vertical ? "x" : "y";
    const other = g.vertical ? "y" : "x";
    return {
      type: "line",
      [side + "0"]: g.value,
      [side + "1"]: g.value,
      [other + "ref"]: "paper",
      [other + "0"]: 0,
      [other + "1"]: 1,
      line: { color: colour("bad"), width: 1.5, dash: "dot" },
    };
  }

  function guideLabel(g, chart) {
    const log = (g.vertical ? chart.x : chart.y).log;
    const place = g.vertical ? { x: log ? Math.log10(g.value) : g.value, y: 1, yref: "paper", xanchor: "left", yanchor: "top" }
      : { y: log ? Math.log10(g.value) : g.value, x: 1, xref: "paper", xanchor: "right", yanchor: "bottom" };
    return { ...place, text: g.label, showarrow: false, font: { color: colour("bad"), size: 12 }, bgcolor: colour("paper"), opacity: 0.9 };
  }

  function draw(chart) {
    const element = document.getElementById(chart.id);
    const bars = chart.y.categories.length;
    if (bars) element.style.height = Math.max(260, 120 + 26 * bars) + "px";
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
      bargap: 0.25,
      xaxis: axis(chart, "x"),
      yaxis: axis(chart, "y"),
      showlegend: named > 1,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 12 } },
      shapes: chart.guides.map(guide),
      annotations: chart.guides.map((g) => guideLabel(g, chart)),
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("ink") },
    };
    if (bars) layout.yaxis.autorange = "reversed";
    Plotly.react(element, chart.series.map((s, i) => trace(s, i, chart)), layout, {
      responsive: true,
      displaylogo: false,
      showSendToCloud: false,
      plotlyServerURL: "",
      displayModeBar: "hover",
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

  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const first = table.tBodies[0].rows[0];
      if (first && first.cells[column].className === "number") header.className = "number";
      header.addEventListener("click", () => sortBy(header));
    });
  }
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
