"use strict";
// The charts as Vega-Lite specifications. Colours and shapes come with the rows.

const DASHES = { domain: ["solid", "dashed", "dotted"], range: [[1, 0], [7, 4], [2, 3]] };
const styled = {
  color: { field: "colour", type: "nominal", scale: null },
  strokeDash: { field: "dash", type: "nominal", scale: DASHES, legend: null },
};

function look(theme) {
  return {
    background: "transparent", font: "system-ui, sans-serif", view: { stroke: theme.line },
    axis: { labelColor: theme.soft, titleColor: theme.ink, gridColor: theme.line, domainColor: theme.line, tickColor: theme.line, labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" },
    header: { labelColor: theme.ink, labelFontSize: 12, titleColor: theme.ink }, text: { color: theme.ink },
  };
}

function share(field, title, domain) {
  return { field, type: "quantitative", title, scale: domain ? { domain } : { zero: false, nice: true }, axis: { format: "~%", tickCount: 6 } };
}

function accuracyChart(rows, about) {
  const tooltip = [{ field: "label", title: "defense" }, { field: "threat" }, { field: "eps" }, { field: "text", title: "accuracy, %" }];
  const x = { field: "eps", type: "quantitative", title: "eps (L∞, pixel units)", axis: { tickCount: 7 } };
  const shape = { field: "shape", type: "nominal", scale: null };
  return {
    description: `Accuracy against eps, ${about}`, data: { values: rows }, width: "container", height: 320,
    encoding: { x, detail: [{ field: "label" }, { field: "threat" }] },
    layer: [
      { mark: { type: "line", strokeWidth: 2 }, encoding: { y: share("accuracy", "accuracy", [0, 1]), ...styled } },
      { mark: { type: "rule", strokeWidth: 1.5 }, encoding: { y: { field: "low", type: "quantitative" }, y2: { field: "high" }, color: styled.color } },
      { mark: { type: "point", filled: true, size: 75, opacity: 1 }, encoding: { y: { field: "accuracy", type: "quantitative" }, color: styled.color, shape, tooltip } },
    ],
  };
}

function tradeoffChart(rows, eps) {
  const tooltip = [{ field: "label", title: "defense" }, { field: "clean_text", title: "clean, %" }, { field: "attacked_text", title: `at eps ${eps}, %` }];
  const x = share("clean_accuracy", "clean accuracy"), y = share("attacked_accuracy", `accuracy at eps ${eps}, worst attack`, [0, 1]);
  const reached = { condition: { test: "datum.clean_accuracy >= floor - 1e-9", value: 1 }, value: 0.25 };
  const others = { type: "quantitative" };
  return {
    description: `Clean accuracy against the accuracy under the worst attack at eps ${eps}`,
    data: { values: rows }, width: "container", height: 320, params: [{ name: "floor", value: 0 }],
    layer: [
      { mark: { type: "rule", strokeWidth: 1.5 }, encoding: { x, y: { field: "attacked_low", ...others }, y2: { field: "attacked_high" }, color: styled.color, opacity: reached } },
      { mark: { type: "rule", strokeWidth: 1.5 }, encoding: { x: { field: "clean_low", ...others }, x2: { field: "clean_high" }, y: { field: "attacked_accuracy", ...others }, color: styled.color, opacity: reached } },
      { mark: { type: "point", filled: true, size: 110 }, encoding: { x, y, color: styled.color, shape: { field: "shape", type: "nominal", scale: null }, opacity: reached, tooltip } },
      ...[0, 1].filter(above => rows.some(row => row.above === above)).map(above => ({  // neighbours in height on different sides of their points
        transform: [{ filter: `datum.above === ${above}` }], mark: { type: "text", align: "left", dx: 9, dy: above ? -8 : 11, fontSize: 11.5 },
        encoding: { x, y, text: { field: "label" }, opacity: reached },
      })),
    ],
  };
}

function certifiedChart(rows) {
  const tooltip = [{ field: "label", title: "classifier" }, { field: "radius", format: ".3f" }, { field: "accuracy", format: ".1%" }];
  const x = { field: "radius", type: "quantitative", title: "L2 radius (pixel units)" };
  const y = { field: "accuracy", type: "quantitative" }, detail = { field: "label" };
  const curve = [
    { mark: { type: "area", interpolate: "step-before", opacity: 0.14 }, encoding: { y: { field: "low", type: "quantitative" }, y2: { field: "high" }, color: styled.color, detail } },
    { mark: { type: "line", interpolate: "step-before", strokeWidth: 2 }, encoding: { y: share("accuracy", "certified accuracy", [0, 1]), ...styled, detail } },
    { mark: { type: "point", filled: true, size: 60, opacity: 0 }, encoding: { y, tooltip } },
  ].map(layer => ({ transform: [{ filter: "datum.dash !== 'dotted'" }], ...layer }));
  const published = { transform: [{ filter: "datum.dash === 'dotted'" }], mark: { type: "point", shape: "cross", filled: true, size: 70, opacity: 1 }, encoding: { y, color: styled.color, tooltip } };
  return {
    description: "Certified accuracy against L2 radius", data: { values: rows }, width: "container", height: 320, encoding: { x },
    layer: rows.some(row => row.dash === "dotted") ? [...curve, published] : curve,
  };
}

function trainingChart(rows, models, width) {
  const across = width > 620 ? Math.min(models.length, 2) : 1;
  const logarithmic = rows.every(row => row.loss > 0);
  return {
    description: "Training loss against step", data: { values: rows },
    facet: { field: "model", type: "nominal", title: null }, columns: across,
    resolve: { scale: { x: "independent", y: "independent" }, axis: { x: "independent", y: "independent" } },
    spec: {
      width: Math.max(170, Math.floor(width / across) - 75), height: 240,
      encoding: {
        x: { field: "step", type: "quantitative", title: "step", axis: { tickCount: 5 } },
        y: { field: "loss", type: "quantitative", title: "loss", scale: { type: logarithmic ? "log" : "linear", nice: true }, axis: { tickCount: 4, format: "~g" } },
        ...styled, detail: { field: "run" },
      },
      layer: [
        { mark: { type: "line", strokeWidth: 1.7 } },
        { mark: { type: "point", filled: true, size: 50, opacity: 0 }, encoding: { tooltip: [{ field: "run" }, { field: "step" }, { field: "loss", format: ".4g" }] } },
      ],
    },
  };
}
