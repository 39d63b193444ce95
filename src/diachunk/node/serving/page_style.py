"""How the page for people looks. One string: nothing is loaded from anywhere."""

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#17202a;--soft:#66717f;--line:#e3e7ec;
--good:#16855b;--busy:#2468d6;--part:#b7791f;--track:#e9edf2}
@media(prefers-color-scheme:dark){:root{--paper:#0f1318;--card:#171d24;--ink:#e8edf3;--soft:#8e9aa8;--line:#27303a;
--good:#3fbf8a;--busy:#6aa1ff;--part:#e0a84a;--track:#232c36}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:2.5rem 1.25rem 3rem}
header{display:flex;flex-wrap:wrap;align-items:center;gap:.5rem 1rem;margin-bottom:1.5rem}
h1{font-size:1.75rem;line-height:1.2;margin:0;letter-spacing:-.02em;overflow-wrap:anywhere}
header p{margin:0;display:flex;flex-wrap:wrap;gap:.4rem}
.pill{border:1px solid var(--line);background:var(--card);border-radius:99px;padding:.1rem .7rem;font-size:.8rem;
color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.75rem;margin-bottom:.75rem}
.tile,section{background:var(--card);border:1px solid var(--line);border-radius:12px}
.tile{padding:.9rem 1.1rem}
h3{margin:0;font-size:.78rem;font-weight:500;color:var(--soft)}
.tile b{display:block;font-size:1.5rem;font-weight:600;letter-spacing:-.02em;white-space:nowrap}
small{color:var(--soft);font-size:.78rem}
.columns{display:grid;grid-template-columns:minmax(0,1fr) 300px;gap:.75rem;align-items:start}
section{padding:1.1rem}
h2{font-size:1rem;margin:0 0 .6rem}
table{width:100%;border-collapse:collapse}
th{font-size:.78rem;font-weight:500;color:var(--soft);text-align:left;padding:0 .75rem .4rem 0}
td{border-top:1px solid var(--line);padding:.6rem .75rem .6rem 0;vertical-align:middle}
td:nth-child(2){width:32%;min-width:130px}
td span{font-size:.8rem;color:var(--soft)}
.name{font-weight:600;overflow-wrap:anywhere}
.name .rev{font-weight:400;font-size:inherit}
.n{text-align:right;white-space:nowrap}
td:last-child,th:last-child{padding-right:0;text-align:right}
.bar{height:6px;border-radius:3px;background:var(--track);overflow:hidden}
.bar i{display:block;height:100%;border-radius:3px;background:var(--part)}
.done .bar i{background:var(--good)}
.busy .bar i,.clients .bar i{background:var(--busy)}
.clients{list-style:none;margin:0;padding:0}
.clients li{display:grid;grid-template-columns:1fr auto;gap:.1rem .5rem;padding:.5rem 0;
border-top:1px solid var(--line)}
.clients li:first-child{border-top:0;padding-top:0}
.clients span{overflow-wrap:anywhere}
.clients b{font-weight:600;white-space:nowrap}
.clients .bar{grid-column:1/-1}
.none{color:var(--soft);margin:0}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85em}
a{color:var(--busy);text-decoration:none}
a:hover{text-decoration:underline}
footer{margin-top:1.5rem;color:var(--soft);font-size:.85rem}
footer p{margin:.3rem 0}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;margin:.3rem 0 .8rem;
color:var(--ink);overflow-x:auto}
@media(max-width:760px){.tiles{grid-template-columns:1fr 1fr}.tile:last-child{grid-column:1/-1}
main{padding-top:1.25rem}.columns{grid-template-columns:minmax(0,1fr)}
td:last-child,th:last-child{display:none}.n{padding-right:0}}
"""
