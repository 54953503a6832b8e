# shellcheck shell=bash
# Set-up of the repository's .venv, for launch/quickstart.sh, reproduce.sh and test.sh, which source it.
# It works with the bash 3.2 of macOS. What it promises is in launch/README.md.
#
#   set_up GROUP ARGUMENTS...   GROUP: a dependency group of pyproject.toml, or "" for none
#
# takes --python= and --extra= out of ARGUMENTS, leaves the rest in the array REST, and returns
# with a finished .venv whose interpreter is $PYTHON.

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
PYTHON=$VENV/bin/python
STAMP=$VENV/crfr-setup # three lines: key, groups, extras; the key is "unfinished" during a set-up
LOG=$VENV/crfr-setup.log
OLDEST=3.11

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

refuse() { # a mistake of the caller: nothing was changed
  say "$*"
  exit 2
}

# probe INTERPRETER: sets VERSION, PREFIX and BASE (the interpreter itself, outside any
# environment).  Fails for what does not run: pyenv has shims for versions that are not installed.
probe() {
  local out
  out=$("$1" -c 'import os, sys
print("%d.%d.%d" % sys.version_info[:3])
print(os.path.realpath(getattr(sys, "base_prefix", sys.prefix)))
print(getattr(sys, "_base_executable", None) or sys.executable)' 2>/dev/null) || return 1
  VERSION='' PREFIX='' BASE=''
  {
    read -r VERSION || true
    read -r PREFIX || true
    read -r BASE || true
  } <<<"$out"
  [[ $VERSION =~ ^[0-9]+\.[0-9]+\.[0-9]+$ && -n $BASE ]]
}

recent() { # recent VERSION: is it OLDEST or newer?
  local major=${1%%.*} minor=${1#*.}
  minor=${minor%%.*}
  ((major > ${OLDEST%%.*} || (major == ${OLDEST%%.*} && minor >= ${OLDEST#*.})))
}

can_make_venv() { command -v uv >/dev/null || "$1" -c 'import venv, ensurepip' 2>/dev/null; }

# choose REQUEST: the interpreter that --python= names (a path, a command or a version)
choose() {
  local request=$1 found
  if [[ $request == */* ]]; then
    [[ -x $request && ! -d $request ]] || refuse "--python=$request: no such interpreter"
    found=$request
  elif [[ $request =~ ^[0-9]+(\.[0-9]+)*$ ]]; then
    if [[ $request == *.* ]]; then
      recent "$request" || refuse "--python=$request is too old: crfr needs Python $OLDEST or newer"
    fi
    found=python$(cut -d. -f1,2 <<<"$request")
    if ! probe "$found" || [[ $VERSION. != "$request".* ]]; then
      command -v uv >/dev/null || refuse "--python=$request: no working $found on PATH"
      found=$(uv python find "$request" 2>/dev/null) || {
        say "fetching Python $request with uv"
        uv python install --quiet "$request" && found=$(uv python find "$request")
      } || refuse "--python=$request: not on this machine, and uv could not fetch it"
    fi
  else
    found=$(command -v "$request") || refuse "--python=$request: no such command on PATH"
  fi
  probe "$found" || refuse "--python=$request: it does not run as a Python interpreter"
  recent "$VERSION" ||
    refuse "--python=$request is Python $VERSION: crfr needs Python $OLDEST or newer"
  can_make_venv "$BASE" ||
    refuse "--python=$request lacks the modules venv and ensurepip: install them" \
      "(Debian, Ubuntu: apt install python${VERSION%.*}-venv), install uv, or name another one"
}

# choose_any: the first interpreter that will do
choose_any() {
  local name found old=''
  for name in python3.13 python3.12 python3.11 python3; do
    probe "$name" || continue
    if ! recent "$VERSION"; then
      old=" ($name is Python $VERSION)"
    elif ! can_make_venv "$BASE"; then
      old=" ($name lacks venv: apt install python${VERSION%.*}-venv)"
    else
      return 0
    fi
  done
  if command -v uv >/dev/null; then
    found=$(uv python find ">=$OLDEST" 2>/dev/null) && probe "$found" && return 0
    choose 3.13
    return 0
  fi
  refuse "no Python $OLDEST or newer here$old: install one, or name it with --python=PATH"
}

# key: a digest of all that the contents of .venv depend on
key() {
  "$PYTHON" -c 'import hashlib, os, sys
digest = hashlib.sha256(repr((sys.version, sys.base_prefix, sys.argv[1])).encode())
for name in ("pyproject.toml", "constraints.txt", "launch/setup.sh"):
    with open(os.path.join(sys.argv[1], name), "rb") as file:
        digest.update(file.read())
print(digest.hexdigest())' "$ROOT"
}

has() { case " $1 " in *" $2 "*) return 0 ;; *) return 1 ;; esac }

check_extra() { # every name in it is one of pyproject.toml's
  local known name
  known=$(sed -n '/^\[project.optional-dependencies\]/,/^$/s/^\([a-z0-9-]*\) *=.*/\1/p' \
    "$ROOT/pyproject.toml" | tr '\n' ' ')
  for name in ${1//,/ }; do
    has "$known" "$name" || refuse "--extra=$1: no extra $name, there are: ${known% }"
  done
}

quietly() { # quietly COMMAND...: into the log; shown when it fails
  "$@" >>"$LOG" 2>&1 && return 0
  tail -n 40 -- "$LOG" >&2
  say "failed, see the lines above (all of them in .venv/${LOG##*/}); the next run starts afresh"
  exit 1
}

install() { # install GROUPS EXTRA, into .venv
  local group extra=${2:+[$2]}
  local -a wanted=(-c constraints.txt -e ".$extra")
  for group in $1; do wanted+=(--group "$group"); done
  cd -- "$ROOT" || exit
  if command -v uv >/dev/null; then
    quietly uv pip install --quiet --python "$PYTHON" "${wanted[@]}"
  else
    # dependency groups need pip 25.1 or newer; constraints.txt has the version
    quietly "$PYTHON" -m pip install --quiet --disable-pip-version-check -c constraints.txt -U pip
    quietly "$PYTHON" -m pip install --quiet --disable-pip-version-check "${wanted[@]}"
  fi
}

set_up() {
  local group=$1 request='' extra='' extra_given='' argument
  shift
  REST=()
  if [[ -n ${CRFR_EXTRA:-} ]]; then extra=$CRFR_EXTRA extra_given=1; fi
  for argument in "$@"; do
    case $argument in
      --python=?*) request=${argument#*=} ;;
      --extra=*) extra=${argument#*=} extra_given=1 ;;
      --python | --python= | --extra) refuse "$argument: write ${argument%=}=VALUE" ;;
      *) REST+=("$argument") ;;
    esac
  done
  check_extra "$extra"

  # one set-up at a time in a checkout, where there is flock
  if command -v flock >/dev/null && exec 9<"$ROOT"; then
    flock -n 9 || { say "waiting for another set-up" && flock 9; } || true
  fi
  prepare "$group" "$request" "$extra" "$extra_given"
  exec 9<&-
}

# prepare GROUP REQUEST EXTRA EXTRA_GIVEN: build .venv, bring it up to date or leave it
prepare() {
  local group=$1 request=$2 extra=$3 extra_given=$4 start=$SECONDS
  local done_key='' groups='' old_extra='' wish='' why=''

  if [[ -n $request ]]; then
    choose "$request"
    wish="$VERSION $PREFIX"
  fi
  if [[ -f $STAMP ]]; then
    {
      read -r done_key || true
      read -r groups || true
      read -r old_extra || true
    } <"$STAMP"
  fi
  [[ -n $extra_given ]] || extra=$old_extra # extras and groups once installed are kept up to date

  # can the .venv that is there serve?
  if [[ -e $VENV || -L $VENV ]]; then
    if ! probe "$PYTHON"; then
      why="its interpreter does not run"
    elif [[ -n $wish && $wish != "$VERSION $PREFIX" ]]; then
      why="it has Python $VERSION from another place than --python=$request"
      [[ ${wish%% *} == "$VERSION" ]] || why="it has Python $VERSION, wanted is ${wish%% *}"
    elif ! recent "$VERSION"; then
      why="it has Python $VERSION, crfr needs $OLDEST or newer"
    elif [[ $done_key == unfinished ]]; then
      why="its set-up was interrupted"
    elif [[ -n $old_extra && $extra != "$old_extra" ]]; then
      why="it has the extra $old_extra, wanted is ${extra:-none}"
    elif ! command -v uv >/dev/null && [[ ! -x $VENV/bin/pip ]]; then
      why="it has no pip"
    elif [[ $done_key == "$(key)" && $extra == "$old_extra" ]] &&
      { [[ -z $group ]] || has "$groups" "$group"; }; then
      return 0
    fi
  fi

  [[ -z $group ]] || has "$groups" "$group" || groups=${groups:+$groups }$group
  if [[ -n $why || ! -e $VENV ]]; then
    if [[ -n $request ]]; then
      choose "$request"
    elif ! { probe "$PYTHON" && probe "$BASE" && recent "$VERSION" && can_make_venv "$BASE"; }; then
      choose_any
    fi
    if [[ -n $why ]]; then
      say "rebuilding .venv: $why"
      rm -f -- "$PYTHON" # first, so that a removal cut short leaves nothing that seems to work
      rm -rf -- "$VENV"
    fi
    say "making .venv with Python $VERSION"
    mkdir -- "$VENV"
    printf '%s\n' unfinished "$groups" "$extra" >"$STAMP"
    if command -v uv >/dev/null; then
      quietly uv venv --quiet --allow-existing --python "$BASE" "$VENV"
    else
      quietly "$BASE" -m venv "$VENV"
    fi
  fi
  printf '%s\n' unfinished "$groups" "$extra" >"$STAMP"
  : >"$LOG"
  say "installing crfr${extra:+[$extra]} and its dependencies${groups:+ with the group $groups}" \
    "(minutes, the first time)"
  (install "$groups" "$extra") || exit 1
  printf '%s\n' "$(key)" "$groups" "$extra" >"$STAMP"
  say "set-up took $((SECONDS - start)) s"
}
