#!/usr/bin/env bash
# Runs one crfr command on all hosts of a Cloud TPU pod slice, from a machine that has gcloud.
#   launch/tpu_vm.sh NAME ZONE COMMAND [arguments of crfr COMMAND]
# NAME and ZONE are the TPU's.  crfr is the one of ~/crfr/.venv on the hosts, or that of $CRFR there.
# launch/README.md says how it comes there.
set -euo pipefail

if (($# < 3)); then
  echo "write $0 NAME ZONE COMMAND [arguments], as in $0 pod us-east5-a train --config=..." >&2
  exit 2
fi
name=$1 zone=$2
shift 2

# quoted once more, for the shells of the hosts
printf -v arguments ' %q' "$@"
# exec: a SIGHUP for a connection that drops goes to crfr then, which saves and ends with 129
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --batch-size=all \
  --command="exec \"\${CRFR:-\$HOME/crfr/.venv/bin/crfr}\"$arguments --distributed"
