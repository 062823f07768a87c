#!/usr/bin/env bash
# Makes .venv in the clone's root with the package in it, editable.
#
#   bash scripts/setup.sh [EXTRA]     e.g. test, cuda, tpu
#
# Needs Python 3.11 or newer; on Debian and Ubuntu installs what its venv module
# lacks. Does nothing that is done already.
set -euo pipefail
cd "$(dirname "$0")/.."
target=".${1:+[$1]}"

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
then
  echo "gog_jax needs python3 3.11 or newer; found: $(python3 --version 2>&1)" >&2
  exit 2
fi
if ! python3 -c 'import ensurepip' 2>/dev/null; then
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  $as_root apt-get update
  $as_root apt-get install -y python3-venv
fi
[ -x .venv/bin/pip ] || python3 -m venv .venv

# Installed before, from the same requirements: nothing to do.
stamp=".venv/installed-${1:-base}"
wanted=$(cksum setup.py)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  .venv/bin/pip install --quiet --disable-pip-version-check -e "$target"
  echo "$wanted" > "$stamp"
fi
