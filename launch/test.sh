#!/usr/bin/env bash
# Runs the test suite.
#   launch/test.sh [--python=PATH] [--extra=NAMES] [arguments of pytest]
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

set_up test "$@"
cd -- "$ROOT"
# Two workers whatever the machine: each has eight virtual JAX devices and compiles on all cores.
exec "$PYTHON" -m pytest -n 2 --dist=worksteal ${REST[@]+"${REST[@]}"}
