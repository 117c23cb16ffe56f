# SPDX-License-Identifier: Apache-2.0
"""Curves over minutes, as one SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Curve", "draw"]

_WIDTH, _HEIGHT = 860, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 92
_COLOURS = ("#0a7d5c", "#1f5fae", "#b3261e", "#8a5a00")
_STEPS, _LABEL_MINUTES = 4, 30


@dataclass(frozen=True, slots=True)
class Curve:
    """A named value for each minute."""

    name: str
    values: Sequence[float]


def draw(title: str, curves: Sequence[Curve], *, unit: str) -> str:
    """Return the SVG: minutes to the right, values upwards from zero."""
    minutes = max(len(curve.values) for curve in curves)
    top = max(max(curve.values) for curve in curves) or 1.0
    across = (_WIDTH - _LEFT - _RIGHT) / max(minutes - 1, 1)
    up = (_HEIGHT - _TOP - _BOTTOM) / top
    floor = _HEIGHT - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        '<g font-family="system-ui, DejaVu Sans, sans-serif">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="26" font-size="16" font-weight="600">{escape(title)}</text>',
    ]
    for step in range(_STEPS + 1):
        value, y = top * step / _STEPS, floor - up * top * step / _STEPS
        parts.append(
            f'<path d="M {_LEFT} {y:.1f} H {_WIDTH - _RIGHT}" stroke="#d8dee4" fill="none"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" font-size="12" text-anchor="end"'
            f' fill="#57606a">{value:.3g} {escape(unit)}</text>'
        )
    parts += [
        f'<text x="{_LEFT + across * minute:.1f}" y="{floor + 18}" font-size="12"'
        f' text-anchor="middle" fill="#57606a">{minute} min</text>'
        for minute in range(0, minutes, _LABEL_MINUTES)
    ]
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(
            f"{'L' if minute else 'M'} {_LEFT + across * minute:.1f} {floor - up * value:.1f}"
            for minute, value in enumerate(curve.values)
        )
        x, y = _LEFT + 390 * (number % 2), floor + 46 + 22 * (number // 2)
        parts.append(
            f'<path d="{line}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<path d="M {x} {y - 4} h 22" stroke="{colour}" stroke-width="3"/>'
            f'<text x="{x + 30}" y="{y}" font-size="12.5">{escape(curve.name)}</text>'
        )
    return "\n".join([*parts, "</g>", "</svg>", ""])
