#!/usr/bin/env bash
# Trains and sweeps the paper's models, writes its tables and figures beside theirs.
#   launch/reproduce.sh [--python=PATH] [--extra=NAMES] --data=SPEC --benchmarks=SPEC [arguments]
# The arguments are those of crfr reproduce; the same command again goes on.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

set_up "" "$@"
exec "$VENV/bin/crfr" reproduce ${REST[@]+"${REST[@]}"}
