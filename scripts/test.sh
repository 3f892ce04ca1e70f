#!/usr/bin/env bash
# Sets up, lints, checks types and tests.
#   usage: bash scripts/test.sh [--slow] [PYTEST_ARGUMENT …]     --slow: the slow tests too, and nothing else
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
marker=()
if [ "${1:-}" = --slow ]; then
  shift
  marker=(-m slow)
fi
# Threads of small nets spin against each other; one each is faster, and results do not depend on it.
export OMP_NUM_THREADS=1
.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "${marker[@]}" "$@"
