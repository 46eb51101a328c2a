"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const figures = [];

  function template() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      automargin: true, gridcolor: color("--line"), linecolor: color("--line"), zerolinecolor: color("--line"),
      tickcolor: color("--line"), spikecolor: color("--muted"), spikethickness: 1, spikedash: "dot",
      title: { standoff: 8, font: { color: color("--muted") } },
    };
    return {
      // By itself Plotly chooses a colour that would be read on white, whatever lies behind faint cells.
      data: { heatmap: [{ textfont: { color: color("--text") } }] },
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--text") },
        colorway: JSON.parse(document.getElementById("palette").textContent),
        margin: { l: 52, r: 12, t: touch ? 10 : 30, b: 44 }, xaxis: axis, yaxis: axis, dragmode: touch ? false : "zoom",
        legend: { orientation: "h", x: 0, xanchor: "left", yref: "container", y: 0, yanchor: "bottom" },
        hoverlabel: {
          bgcolor: color("--card"), bordercolor: color("--line"), font: { color: color("--text") }, namelength: -1,
        },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--muted"), activecolor: color("--accent") },
      },
    };
  }

  function draw(holder) {
    const { data, layout } = JSON.parse(holder.querySelector("script").textContent);
    const place = holder.querySelector(".plot");
    const options = {
      responsive: true, displaylogo: false, displayModeBar: touch ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "downloadJson"],
    };
    Plotly.newPlot(place, data, { ...layout, template: template() }, options);
    figures.push(place);
    for (const box of holder.querySelectorAll("input[type=checkbox]")) {
      const apply = () => {
        const change = JSON.parse(box.dataset.change);
        Plotly.relayout(place, box.checked ? change.on : change.off);
        if (change.traces.length) Plotly.restyle(place, { visible: box.checked }, change.traces);
      };
      box.addEventListener("change", apply);
      apply();
    }
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const number = head.classList.contains("number");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = number ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true });
        return up ? order : -order;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    }));
  }

  document.querySelectorAll("figure").forEach(draw);
  document.querySelectorAll("table").forEach(sortable);
  dark.addEventListener("change", () => figures.forEach((place) => Plotly.relayout(place, { template: template() })));
})();
