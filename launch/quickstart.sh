#!/usr/bin/env bash
# Trains three small models on procedural faces, sweeps them over resolutions, writes a report.
#   launch/quickstart.sh [--python=PATH] [--extra=NAMES] [arguments of crfr quickstart]
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

set_up "" "$@"
exec "$VENV/bin/crfr" quickstart ${REST[@]+"${REST[@]}"}
