"""What the pages need beyond the style sheet of the report: bar, links, forms, long texts."""

from __future__ import annotations

from typing import Final

WEB_STYLE: Final = """
:root { --wait:#c9bfa3; }
@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) { --wait:#6b6350; } }
:root[data-theme=dark] { --wait:#6b6350; }
code.digest { display:inline-block; max-width:100%; vertical-align:bottom;
  overflow:hidden; text-overflow:ellipsis; white-space:nowrap; overflow-wrap:normal; }
td.cut { max-width:0; width:55%; }
table.wide td.cut { width:auto; min-width:170px; }
.sr { position:absolute; left:-999px; }
.find { margin:0; min-width:0; } .find input { width:250px; max-width:100%; }
.find input, .btn, .choice select, .choice button { font:inherit; height:28px; color:var(--text);
  background:var(--sunk); border:1px solid var(--muted); border-radius:6px; padding:0 9px;
  min-width:0; max-width:100%; }
.find input::placeholder { color:var(--muted); opacity:1; }
.btn, .choice button { background:var(--panel); font-weight:500; cursor:pointer;
  white-space:nowrap; }
.side { display:flex; flex-wrap:wrap; gap:6px 12px; align-items:center; }
.choice { display:flex; flex-wrap:wrap; gap:6px; margin:0; } .half { opacity:.62; }
.legend b { color:var(--text); font-weight:550; margin-left:2px; }
.places-found { margin:0; padding:0 14px 12px; list-style:none; }
.places-found li { display:flex; flex-wrap:wrap; gap:2px 12px; padding:6px 0;
  border-top:1px solid var(--line); align-items:baseline; overflow-wrap:anywhere; }
.places-found li:first-child { border-top:0; }
a { color:var(--ink-farm); text-decoration-thickness:1px; text-underline-offset:2px; }
td a, td > .tag, .mast a { text-decoration:none; }
td a:hover, .mast a:hover { text-decoration:underline; }
.skip { position:absolute; left:-999px; }
.skip:focus { left:12px; top:8px; background:var(--panel); padding:4px 10px; z-index:9; }
.mast { display:flex; align-items:center; gap:18px; min-height:46px; padding:0 24px;
  background:var(--panel); border-bottom:1px solid var(--line); }
.mast a { color:var(--text); } .brand { font-weight:650; font-size:14px; }
.mast nav { flex:1; }
.mast nav a { padding:5px 10px; border-radius:6px; color:var(--muted); font-weight:500; }
.mast nav a[aria-current] { background:var(--sunk); color:var(--text); }
.top { display:flex; flex-wrap:wrap; gap:4px 16px; justify-content:space-between;
  align-items:flex-start; }
.sub b { color:var(--text); font-weight:600; } .panel > header .more { margin-left:auto; }
.brand svg { margin-right:8px; vertical-align:-3px; }
.brand .edge { fill:none; stroke:var(--muted); stroke-width:1.5; stroke-dasharray:2.6 2; }
.unit { font-size:13px; font-weight:500; color:var(--muted); letter-spacing:0; }
.warn .note { display:block; } .dot { display:inline-block; margin:0 6px 0 0; }
.closed { fill:var(--line); } .slots .sunk { stroke:var(--line); }
.causes { margin:0; padding:0 14px 12px; list-style:none; }
.causes li { display:grid; grid-template-columns:minmax(0,1fr) auto 62px; gap:2px 12px;
  padding:7px 0; border-top:1px solid var(--line); align-items:baseline; }
.causes li:first-child { border-top:0; } .causes .note { grid-column:1/-1; }
.causes svg { grid-column:1/-1; display:block; width:100%; }
@media (min-width:1001px) { .wide-left { grid-template-columns:minmax(0,2fr) minmax(0,1fr); } }
.places p { margin:0 0 8px; } .places svg { display:block; width:100%; margin-bottom:8px; }
.chart text.scale { paint-order:stroke; stroke:var(--panel); stroke-width:4px; }
.soft { opacity:.14; } .line { fill:none; stroke-width:1.5; vector-effect:non-scaling-stroke; }
.l-farm { stroke:var(--farm); } .l-fallback { stroke:var(--fall); } .l-hit { stroke:var(--hit); }
.l-free { stroke:var(--muted); stroke-dasharray:3 3; } .wait { fill:var(--wait); }
.free { fill:none; stroke:var(--muted); stroke-dasharray:2 2; }
.spark svg { display:block; width:100%; height:26px; margin-top:7px; }
.mast nav { display:flex; flex-wrap:wrap; gap:2px; }
.who { color:var(--muted); font-size:12px; overflow-wrap:anywhere; }
.live { margin:0; color:var(--muted); font-size:12px; text-align:right; }
main:focus { outline:none; }
h1.path { font:600 16px/1.3 "JetBrains Mono",ui-monospace,"SF Mono",Menlo,Consolas,monospace; }
.facts { display:grid; grid-template-columns:auto minmax(0,1fr); gap:4px 16px; margin:0;
  padding:2px 14px 13px; }
.facts dt { color:var(--muted); } .facts dd { margin:0; overflow-wrap:anywhere; }
.cmds { grid-template-columns:minmax(0,1fr); gap:0; } .cmds dt { overflow-wrap:anywhere; }
.cmds dd { color:var(--muted); margin-bottom:7px; }
.reasons { margin:0; padding:0 14px 12px 30px; } .reasons li { margin-top:6px; }
.reasons .note { display:block; }
.cmd { margin:0 14px 13px; padding:9px 11px; background:var(--sunk); border-radius:6px;
  white-space:pre-wrap; overflow-wrap:anywhere; line-height:1.6; font-size:12px;
  font-family:"JetBrains Mono",ui-monospace,"SF Mono",Menlo,Consolas,monospace; }
.filter { display:flex; flex-wrap:wrap; gap:8px 14px; align-items:end; padding:12px 14px; }
.filter label { color:var(--muted); font-size:12px; display:grid; gap:3px; }
.filter input, .filter select, .filter button { font:inherit; color:var(--text); height:30px;
  background:var(--sunk); border:1px solid var(--muted); border-radius:6px; padding:0 9px;
  min-width:0; max-width:100%; }
.filter button { cursor:pointer; font-weight:500; }
.pages { display:flex; gap:16px; padding:9px 14px 11px; }
table.parts .bar { width:35%; } td.gauge { width:64px; min-width:54px; }
td.share { min-width:110px; width:25%; } p.pad { margin:0; }
td.name { min-width:180px; overflow-wrap:anywhere; } .share svg { width:100%; }
.builds td:first-child { min-width:150px; overflow-wrap:anywhere; }
@media (max-width:1000px) { .chart text.some { display:none; } table.some { min-width:480px; }
  .mast { padding:6px 12px; gap:4px 10px; flex-wrap:wrap; }
  .mast nav { order:9; flex-basis:100%; } .mast nav a { padding:3px 8px; }
  .mast .find { flex:1 1 120px; } .find input { width:100%; }
  table.builds { min-width:720px; } }
@media print { .mast, .choice, .filter, .skip { display:none; } }
"""
