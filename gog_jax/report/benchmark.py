"""Which published benchmark a report is about, as its evaluations found it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from typing import Any

from etils import epath


def read(folder: epath.Path, policies: Sequence[str]) -> list[dict[str, Any]]:
  """What the policies' manifests say of the items, each thing once.

  Mostly one: its 'name', 'label', 'n', 'left_out', ... Empty where they say
  nothing, and for the embedded world, whose items are its own.
  """
  found = []
  for policy in policies:
    path = folder / policy / 'manifest.json'
    try:
      manifest = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
      continue  # The numbers beside it are whole.
    items = manifest.get('benchmark') or {}
    if items.get('digest') and items not in found:
      found.append(items)
  return found


def line(items: Mapping[str, Any]) -> str:
  """One line: how many items of which benchmark, and whether the paper's."""
  date = f' {items["date"]}' if items.get('date') else ''
  text = f'{items["name"]}{date}: {items["n"]} items'
  if items.get('left_out'):
    text += f', {items["left_out"]} left out'
  return f'{text}; {items.get("label") or "as many as the paper has"}'
