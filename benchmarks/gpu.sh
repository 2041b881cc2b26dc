#!/usr/bin/env bash
# The whole check on a machine with an NVIDIA GPU: build, GPU tests (a skip is a failure),
# compute-sanitizer, ops, latency of every network. Needs no network and installs nothing: Python
# with torch, CMake, ninja, pybind11, pytest and nvcc must be there; TensorRT is used if it is.
#
#   OUT=results benchmarks/gpu.sh          leaves JSON, logs and steps.tsv in OUT
#
# Each step goes on where an earlier one failed. BUDGET is the seconds for everything; steps that no
# longer fit are named in steps.tsv as left out. Exit status: the number of steps that failed.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=$(realpath -m "${OUT:-benchmarks/results/gpu}")
BUDGET=${BUDGET:-560}
PYTHON=${PYTHON:-python3}
ARCHITECTURES=${ARCHITECTURES:-90}
BUILD=${BUILD:-build/gpu}
NETWORKS=${NETWORKS:-}
SIZES=${SIZES:-256x256 1280x720}
COMPARE=${COMPARE:-torch-fp16-nchw,torch-fp16,torch-fp16-compile}
export PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export RESTORERT_REQUIRE_GPU=${RESTORERT_REQUIRE_GPU:-1} RESTORERT_BUILD_DIR="$PWD/$BUILD"
RESTORERT_COMMIT=${RESTORERT_COMMIT:-$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}
export RESTORERT_COMMIT
mkdir -p "$OUT"
printf 'step\tstatus\tseconds\n' > "$OUT/steps.tsv"
failed=0

# step NAME MOST_SECONDS COMMAND...: run it, log it, note how it ended.
step() {
  local name=$1 most=$2 left started status
  shift 2
  left=$((BUDGET - SECONDS))
  if ((left < 10)); then
    printf '%s\tleft out: no time\t0\n' "$name" >> "$OUT/steps.tsv"
    return
  fi
  started=$SECONDS
  echo "== $name"
  timeout --kill-after=5 "$((most < left ? most : left))" "$@" > "$OUT/$name.log" 2>&1
  status=$?
  tail -n 12 "$OUT/$name.log"
  ((status == 0)) || failed=$((failed + 1))
  printf '%s\t%s\t%s\n' "$name" "$status" "$((SECONDS - started))" >> "$OUT/steps.tsv"
}

build() {
  cmake -S . -B "$BUILD" -G Ninja -DCUDA=ON -DTESTS=ON \
    -DCMAKE_CUDA_ARCHITECTURES="$ARCHITECTURES" -DPython_EXECUTABLE="$(command -v "$PYTHON")" &&
    cmake --build "$BUILD" && cmake --install "$BUILD" --prefix python
}

sanitize() {
  local tool status=0
  for tool in memcheck racecheck initcheck synccheck; do
    echo "-- $tool"
    compute-sanitizer --tool "$tool" --kernel-regex kns=restorert --error-exitcode 9 \
      "$PYTHON" benchmarks/sanitize.py || status=1
  done
  return "$status"
}

# One variant of each family: NETWORKS names others.
networks() {
  "$PYTHON" - <<'PYTHON_END'
from restorert.networks import FAMILIES
print(" ".join(next(iter(family.variants)) for family in FAMILIES))
PYTHON_END
}

nvidia-smi > "$OUT/nvidia-smi.txt" 2>&1 || true
export -f build sanitize networks
export BUILD PYTHON ARCHITECTURES
step build 180 bash -c build
step tests 150 "$PYTHON" -m pytest -m gpu tests/ops tests/native tests/backends tests/runtime -q -p no:cacheprovider
step native 90 "$PYTHON" -m pytest tests/native/test_native_cpp.py -q -p no:cacheprovider
step ops 120 "$PYTHON" benchmarks/ops.py --compile --json "$OUT/ops.json"
for network in ${NETWORKS:-$(networks)}; do
  # shellcheck disable=SC2086
  step "latency-$network" 240 "$PYTHON" benchmarks/latency.py --model "$network" --fp16 \
    --size $SIZES --runner cuda --compare "$COMPARE" --json "$OUT/latency-$network.json"
done
step sanitize 180 bash -c sanitize
column -t -s "$(printf '\t')" "$OUT/steps.tsv" 2>/dev/null || cat "$OUT/steps.tsv"
exit "$failed"
