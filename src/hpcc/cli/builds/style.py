"""The style sheet of the report page: no font, no image, nothing from a network.

Light and dark follow the system, unless the page has a `data-theme`. The page's policy names this
text by its hash, so an element with an inline style shows nothing of it: widths are attributes of
SVG.
"""

from __future__ import annotations

from typing import Final

_DARK: Final = """
  --bg:#0f1113; --panel:#16191c; --sunk:#1c2024; --line:#2c3137; --text:#e7e8e9; --muted:#9aa1a9;
  --hit:#3fb795; --farm:#6a97f5; --here:#5fb4d4; --kept:#b48ae6; --fall:#e39d35; --fail:#ef6d62;
  --hit-soft:#14302a; --hit-ink:#55c9a8; --ink-farm:#86abf8; --farm-soft:#1a2745;
  --fall-ink:#eeb25a; --fall-soft:#362712; --fail-soft:#3a1c1a;"""
STYLE: Final = (
    """
:root { color-scheme: light dark;
  --bg:#f6f6f3; --panel:#ffffff; --sunk:#f1f1ed; --line:#e2e1dc; --text:#1b1d20; --muted:#5b5f66;
  --hit:#1a8068; --farm:#3a6bd0; --here:#2f7f9e; --kept:#8458ba; --fall:#b96a00; --fail:#bb2f25;
  --hit-soft:#dff0eb; --hit-ink:#12634f; --ink-farm:#2a55b4; --farm-soft:#e4ebfa;
  --fall-ink:#8f5200; --fall-soft:#fbeedb; --fail-soft:#fae3e0; }
@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) {"""
    + _DARK
    + """ } }
:root[data-theme=light] { color-scheme:light; }
:root[data-theme=dark] { color-scheme:dark;"""
    + _DARK
    + """ }
* { box-sizing:border-box; }
html { -webkit-text-size-adjust:100%; }
body { margin:0; background:var(--bg); color:var(--text);
  font:13px/1.45 Inter,"Segoe UI",Roboto,ui-sans-serif,system-ui,sans-serif; }
code { font-family:"JetBrains Mono",ui-monospace,"SF Mono",Menlo,Consolas,monospace;
  font-size:12px; overflow-wrap:anywhere; }
:focus-visible { outline:2px solid var(--farm); outline-offset:2px; border-radius:3px; }
main { max-width:1480px; margin:0 auto; padding:18px 24px 40px; }
h1 { font-size:19px; line-height:1.25; font-weight:650; margin:0; overflow-wrap:anywhere; }
h2 { font-size:13px; font-weight:600; margin:0; }
.sub { color:var(--muted); margin:3px 0 0; overflow-wrap:anywhere; }
.panel { background:var(--panel); border:1px solid var(--line); border-radius:9px; min-width:0; }
.panel > header { display:flex; flex-wrap:wrap; align-items:baseline; gap:4px 12px;
  padding:11px 14px 9px; }
.note { color:var(--muted); font-size:12px; }
.grid { display:grid; gap:14px; grid-template-columns:minmax(0,1fr); }
main > * + * { margin-top:14px; }
.kpis { margin:14px 0 0; display:grid; grid-template-columns:repeat(6,minmax(0,1fr)); }
.kpi { padding:12px 14px 10px; border-left:1px solid var(--line); min-width:0; }
.kpi:first-child { border-left:0; }
.kpi dt { color:var(--muted); font-size:12px; }
.kpi dd { margin:0; }
.kpi .v { font-size:22px; line-height:1.25; font-weight:600; letter-spacing:-.02em; }
.kpi .d { color:var(--muted); font-size:12px; }
.warn { border-left:3px solid var(--fall); padding:8px 14px; margin-bottom:0; }
.legend { display:flex; gap:4px 16px; flex-wrap:wrap; color:var(--muted); font-size:12px;
  padding:0; margin:0 0 0 auto; list-style:none; }
.legend svg { margin-right:6px; vertical-align:-1px; }
.hit { fill:var(--hit); } .farm { fill:var(--farm); } .here { fill:var(--here); }
.not-kept { fill:var(--kept); } .fallback { fill:var(--fall); } .failed { fill:var(--fail); }
.rest { fill:var(--muted); } .sunk { fill:var(--sunk); }
.chart { display:block; width:100%; overflow:visible; }
.chart text { fill:var(--muted); font-size:11px; font-variant-numeric:tabular-nums; }
.chart .tick { stroke:var(--line); }
.pad { padding:0 14px 12px; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; width:100%; }
th { text-align:left; font-weight:500; color:var(--muted); font-size:12px; white-space:nowrap; }
th, td { padding:5px 10px; border-bottom:1px solid var(--line); vertical-align:top; }
tbody tr:last-child td { border-bottom:0; }
th:first-child, td:first-child { padding-left:14px; }
th:last-child, td:last-child { padding-right:14px; }
.n { text-align:right; white-space:nowrap; font-variant-numeric:tabular-nums; }
.bar { min-width:60px; width:22%; }
.file { min-width:230px; } .word { white-space:nowrap; }
td svg { display:block; margin-top:5px; } td svg:not(.slots) { width:100%; }
.tag { display:inline-block; padding:0 7px; line-height:18px; border-radius:9px; font-size:11.5px;
  white-space:nowrap; background:var(--sunk); color:var(--muted); }
.tag.t-hit { background:var(--hit-soft); color:var(--hit-ink); }
.tag.t-farm, .tag.t-here { background:var(--farm-soft); color:var(--ink-farm); }
.tag.t-fallback, .tag.t-not-kept { background:var(--fall-soft); color:var(--fall-ink); }
.tag.t-failed { background:var(--fail-soft); color:var(--fail); }
.why b { font-weight:600; } .why .note { display:block; }
footer { color:var(--muted); font-size:12px; margin-top:18px; display:flex; flex-wrap:wrap;
  gap:4px 16px; }
.stack { display:flex; flex-direction:column; gap:14px; min-width:0; }
h1 + .sub { margin-top:3px; }
@media (min-width:1001px) { .two { grid-template-columns:minmax(0,1fr) minmax(0,1fr); } }
@media (max-width:1000px) {
  main { padding:14px 12px 30px; }
  .kpis { grid-template-columns:repeat(2,minmax(0,1fr)); }
  .kpi:nth-child(odd) { border-left:0; }
  .legend { margin-left:0; }
  .file { min-width:150px; }
  table.wide { min-width:900px; } }
@media print { body { background:#fff; } }
"""
)
