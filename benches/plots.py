#!/usr/bin/env python3
"""Makes one page of what `side-by-side --json` measured: a plot and a table for each piece of work.

usage: plots.py RESULTS.json PAGE.html

The page loads nothing and runs nothing. Bars are medians, dots are single runs, a line is what must be met. Each plot has one unit:
quantities of different units stand in different plots.
"""
import html, json, pathlib, sys

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #8884; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
.bar { fill: #3b7dd8; } .peer { fill: #9aa4b2; } .run { fill: currentColor; opacity: .6; } .must { stroke: #d64545; stroke-width: 2; }
.grid { stroke: currentColor; opacity: .15; } .missed { color: #d64545; font-weight: 600; } .met { color: #2a8a4a; }
"""
WIDTH, LABELS, VALUES, ROW = 900, 330, 90, 26


def shown(value):
    """Three figures that count."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def nice(value):
    """The next number of the form 1, 2, 4, 5 or 8 times a power of ten."""
    power = 1e-9
    while power * 10 <= value:
        power *= 10
    return next((step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value * (1 - 1e-9)), 10 * power)


def plot(unit, figures):
    values = [value for figure in figures for value in [*figure["runs"], figure.get("must") or 0]]
    right = nice(max(values, default=0) or 1)
    place = lambda value: LABELS + max(value, 0) / right * (WIDTH - LABELS - VALUES)
    height = ROW * len(figures) + 30
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(unit)}">']
    for step in range(5):
        x = place(right * step / 4)
        parts.append(f'<path class="grid" d="M{x:.1f} 4V{height - 24}"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{shown(right * step / 4)}</text>')
    parts.append(f'<text x="{WIDTH}" y="{height - 8}" text-anchor="end">{html.escape(unit)}</text>')
    for row, figure in enumerate(figures):
        y, middle = row * ROW + 8, figure["median"] or 0
        name = figure["name"]
        kind = "bar" if "headgate" in name.lower() or figure.get("must") is not None else "peer"
        parts.append(f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{html.escape(name)}</text>')
        parts.append(f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{place(middle) - LABELS:.1f}" height="{ROW - 9}"/>')
        for run in figure["runs"] if len(figure["runs"]) > 1 else []:
            parts.append(f'<circle class="run" cx="{place(run):.1f}" cy="{y + 8.5}" r="2.5"/>')
        if figure.get("must") is not None:
            x = place(figure["must"])
            parts.append(f'<path class="must" d="M{x:.1f} {y - 3}v{ROW - 3}"/>')
        end = max([middle, *figure["runs"], figure.get("must") or 0])
        parts.append(f'<text x="{place(end) + 7:.1f}" y="{y + 13}">{shown(figure["median"])}</text>')
    parts.append("</svg>")
    return "\n".join(parts)


def verdict(figure):
    middle, must = figure["median"], figure.get("must")
    if must is None or middle is None:
        return ""
    return '<span class="met">met</span>' if middle <= must else '<span class="missed">missed</span>'


def table(figures):
    rows = []
    for figure in figures:
        runs = f"{shown(min(figure['runs']))} to {shown(max(figure['runs']))}" if len(figure["runs"]) > 1 else ""
        cells = [shown(figure["median"]), html.escape(figure["unit"]), runs, shown(figure.get("must")), shown(figure.get("aim"))]
        cells = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        rows.append(f"<tr><td>{html.escape(figure['name'])}</td>{cells}<td>{verdict(figure)}</td></tr>")
    head = "".join(f"<th>{name}</th>" for name in ("", "median", "unit", "runs", "must", "aim", ""))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def section(found):
    units = list(dict.fromkeys(figure["unit"] for figure in found["figures"]))
    plots = [plot(unit, [it for it in found["figures"] if it["unit"] == unit]) for unit in units]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in found["notes"])
    return f"<h2>{html.escape(found['title'])}</h2>{''.join(plots)}{table(found['figures'])}<ul>{notes}</ul>"


def page(report):
    load = report.get("load_before")
    machine = f"{report['cores']} cores" + (f", load {load:.2f} before the first run" if load is not None else "")
    body = "\n".join(map(section, report["sections"]))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Headgate beside others</title><style>{STYLE}</style>'
        f"<h1>Headgate beside others</h1><p><code>{html.escape(report['command'])}</code>, {machine}. Bars are medians, dots "
        f"single runs, the red line is what must be met.</p>{body}</html>\n"
    )


def main():
    results, out = map(pathlib.Path, sys.argv[1:])
    out.write_text(page(json.loads(results.read_text())))


main()
