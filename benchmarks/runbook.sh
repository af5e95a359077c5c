# The common part of gpu.sh and tpu.sh, which source it. A runbook installs the library in
# a new environment, runs commands one after another, and writes OUT/page.md: of each
# command its seconds, its exit code and what it printed. A command that has succeeded is
# not run again, so that a runbook can be stopped and started again. If a command fails,
# the next ones still run, and the exit code of the runbook is 1.

# begin EXTRA OUT: installs the library with an extra, unless $PYTHON is a program that
# has it, and describes the machine. The environment is made by $PYTHON3, by default
# python3, which must be Python 3.11 or newer; if this fails, nothing is run.
begin() {
  local extra=$1
  out=$(realpath -m "$2")
  failed=()
  names=()
  cd "$(dirname "${BASH_SOURCE[0]}")/.."
  mkdir -p "$out"
  if [ -z "${PYTHON:-}" ]; then
    PYTHON=$out/venv/bin/python
    run install bash -c "${PYTHON3:-python3} -m venv '$out/venv' && '$PYTHON' -m pip install -q -e '.[$extra]'"
    if [ ! -e "$out/install.ok" ]; then
      tail "$out/install.err" >&2
      exit 1
    fi
  fi
  export PATH=$(dirname "$(command -v "$PYTHON")"):$PATH
  rm -f "$out/machine.ok" # it may be another one
  run machine python -c 'import jax, os, platform
print(*jax.devices(), sep="\n")
print("jax", jax.__version__, "on", platform.platform(), "with", os.cpu_count(), "cores")'
}

# run NAME COMMAND...: runs a command, and writes its section of the page.
run() {
  local name=$1 code=0 start=$SECONDS
  shift
  names+=("$name")
  [ -e "$out/$name.ok" ] && return
  echo "$name: $*"
  "$@" >"$out/$name.log" 2>"$out/$name.err" || code=$?
  if [ $code -eq 0 ]; then touch "$out/$name.ok"; else failed+=("$name"); fi
  {
    printf '## %s\n\n`%s`\n\n' "$name" "${*//$'\n'/; }"
    printf '%s s, exit code %s, %s\n\n```\n' $((SECONDS - start)) "$code" "$(date -u +%F)"
    grep -v '^{' "$out/$name.log" # the table, not the same figures as JSON
    if [ $code -ne 0 ]; then tail -n 20 "$out/$name.err"; fi
    printf '```\n\n'
  } >"$out/$name.md"
}

# finish TITLE: writes the page, and ends the runbook.
finish() {
  {
    printf '# %s\n\nCommit %s.\n\n' "$1" "$(git rev-parse --short HEAD)"
    for name in "${names[@]}"; do cat "$out/$name.md"; done
  } >"$out/page.md"
  echo "wrote $out/page.md"
  [ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}; see $out/*.err" >&2; exit 1; }
}
