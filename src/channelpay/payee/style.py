"""The one stylesheet of every page that the site makes, small enough to be inline."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --text: #1c2024; --soft: #5c6670; --line: #dfe3e7;
  --paper: #ffffff; --inset: #f4f6f8; --accent: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9ec; --soft: #a0a9b2; --line: #343b42; --paper: #15191d; --inset: #1f252b;
    --accent: #7ab8f5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); line-height: 1.6;
  font: 1.0625rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere; }
main { max-width: 46rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
nav { max-width: 46rem; margin: 0 auto; padding: 1rem 1.25rem 0; font-size: .9rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2em 0 .6em; }
h1 { font-size: 2rem; margin-top: .3em; }
h2 { font-size: 1.3rem; }
h3 { font-size: 1.1rem; }
a { color: var(--accent); text-underline-offset: .15em; }
a:focus-visible, pre:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
img { max-width: 100%; height: auto; }
code { font: .9em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
:not(pre) > code { background: var(--inset); border-radius: 4px; padding: .1em .3em; }
pre { background: var(--inset); border: 1px solid var(--line); border-radius: 8px;
  padding: .9rem 1rem; overflow-x: auto; overflow-wrap: normal; }
blockquote { margin: 1em 0; padding-left: 1rem; border-left: 4px solid var(--line);
  color: var(--soft); }
table { border-collapse: collapse; display: block; overflow-x: auto; overflow-wrap: normal; }
th, td { border-bottom: 1px solid var(--line); padding: .45rem .9rem .45rem 0; text-align: left;
  vertical-align: top; }
hr { border: 0; border-top: 1px solid var(--line); margin: 2.5rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .4rem 1.25rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; }
.command { white-space: pre-wrap; overflow-wrap: anywhere; }
.kicker { color: var(--soft); margin: 0; }
.price { color: var(--accent); white-space: nowrap; }
.pages { list-style: none; padding: 0; }
.pages li { display: flex; justify-content: space-between; gap: 1rem; padding: .55rem 0;
  border-bottom: 1px solid var(--line); }
.pages .cost { color: var(--soft); white-space: nowrap; }
@media (max-width: 34rem) {
  main { padding-top: 1.5rem; }
  h1 { font-size: 1.6rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .7rem; } }
"""
