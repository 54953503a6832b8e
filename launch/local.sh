#!/usr/bin/env bash
# Runs one crfr command in N processes on this machine.
#   launch/local.sh N COMMAND [arguments of crfr COMMAND]
# Process 0 prints, the others only their errors.  SIGTERM and Ctrl-C go to all of them.  The exit
# code is that of the first one that fails.  GPUs are dealt out evenly.
set -uo pipefail

refuse() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

processes=${1:-}
[[ $processes =~ ^[1-9][0-9]{0,3}$ && $# -ge 2 ]] ||
  refuse "write $0 N COMMAND [arguments], as in launch/local.sh 2 train --config=... --workdir=..."
shift

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
crfr=$(command -v crfr) || crfr=$root/.venv/bin/crfr
[[ -x $crfr ]] || refuse "no crfr on PATH nor in .venv: activate its environment, or see README.md"

gpus=0
if [[ ${JAX_PLATFORMS:-} != cpu ]]; then
  if command -v nvidia-smi >/dev/null; then
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU') || gpus=0
  fi
  if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    # as CUDA reads it: up to the first that is none, such as -1; so nothing hides all
    all=$gpus gpus=0
    IFS=', ' read -ra shown <<<"$CUDA_VISIBLE_DEVICES"
    for gpu in ${shown[@]+"${shown[@]}"}; do
      [[ $gpu =~ ^([0-9]{1,4}|(GPU|MIG)-.+)$ ]] || break
      [[ $gpu =~ ^[0-9] ]] && ((all && 10#$gpu >= all)) && break
      gpus=$((gpus + 1))
    done
  fi
fi
((gpus % processes == 0)) || refuse "$gpus GPUs are not to be dealt out to $processes processes"

# a port that nothing listens at, below those that systems give out by themselves
while :; do
  port=$((20000 + RANDOM % 10000))
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done

set -m # else Ctrl-C would be ignored by what runs in the background
pids=()
for ((i = 0; i < processes; i++)); do
  share=()
  if ((gpus)); then
    share=(env "JAX_LOCAL_DEVICE_IDS=$(seq -s, $((i * gpus / processes)) $(((i + 1) * gpus / processes - 1)))")
  fi
  ${share[@]+"${share[@]}"} "$crfr" "$@" --distributed "--coordinator=127.0.0.1:$port" \
    "--processes=$processes" "--process=$i" </dev/null &
  pids+=("$!")
done

# shellcheck disable=SC2329 # the traps call it
forward() { for pid in ${pids[@]+"${pids[@]}"}; do kill -s "$1" "$pid" 2>/dev/null; done; }
trap 'forward TERM' TERM HUP
trap 'forward INT' INT

code=0
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    wait "${pids[i]}"
    ended=$?
    ((code)) || code=$ended
    unset "pids[i]"
  done
  sleep 0.1 &
  wait "$!" # which a signal interrupts, unlike sleep itself
done
exit "$code"
