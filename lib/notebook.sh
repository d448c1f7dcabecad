#!/usr/bin/env bash
# One papermill run of one notebook, for Make:  lib/notebook.sh runs/STUDY/VARIANT/NOTEBOOK.ipynb '{parameters}'
# Executed into a part file that becomes the target when it succeeded, so a failed run leaves no result behind. A kernel
# that dies or loses its port is started once more. Of two makes at once, the second waits and uses what the first made
# with the same parameters, which are kept in a file beside the target.
set -efuo pipefail # f: a launcher's brackets and stars are its own
target=$1 parameters=$2
stem=${target%.ipynb} name=$(basename "${1%.ipynb}") run=$(dirname "${1#runs/}")
mkdir -p "$(dirname "$target")"

execute() {
  ${LAUNCH:-} "${PYTHON:-python}" -I lib/surroundings.py IPYTHONDIR="$PWD/$ipython" \
    -m papermill --log-output --no-progress-bar --cwd notebooks \
    "notebooks/$name.ipynb" "$stem.part.ipynb" -y "$parameters" > "$stem.log" 2>&1 < /dev/null
}

lock=$(dirname "$target")/.$name.lock
exec 9> "$lock" # held, through this open file, until this script and what it started have ended
"${PYTHON:-python}" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' 2> /dev/null || true # some file systems have no locks
if [ "$target" -nt "$lock" ] && [ "$(cat "$stem.given" 2> /dev/null)" = "$parameters" ]; then
  echo "  $run $name: made by another make meanwhile"
  exit 0
fi

ipython=$(dirname "$target")/.$name.ipython # in place of the user's folder, with its start-up files
trap 'rm -rf "$ipython"' EXIT
echo "  $run $name ..."
if ! execute; then
  lost="DeadKernelError|Kernel died|Address already in use|ZMQError|Kernel didn't respond"
  if ! { grep -qE "$lost" "$stem.log" && echo "  $run $name: the kernel was lost, once more" && execute; }; then
    printf '\n%s\n' "$(grep -vE '^ *$' "$stem.log" | tail -n 12)"
    echo "FAILED: $run $name; the whole log is $stem.log"
    exit 1
  fi
fi
printf '%s' "$parameters" > "$stem.given"
mv "$stem.part.ipynb" "$target"
total=0 finished=0
for other in ${TARGETS:-$target}; do
  total=$((total + 1))
  if [ "$other" -nt "${other%.ipynb}.key" ]; then finished=$((finished + 1)); fi
done
printf '  %s %s done, %d s  [%d of %d]\n' "$run" "$name" "$SECONDS" "$finished" "$total" | tee -a "$stem.log"
