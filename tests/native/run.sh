#!/usr/bin/env bash
# The compiled library by itself: strict builds, the check of every level, under sanitizers, and on processors that are not
# here as far as emulators are. What is skipped is said.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export ASAN_OPTIONS=detect_leaks=0  # what a thread keeps for the next step lives as long as the thread

build() { # NAME OPTION...
  cmake -S . -B "$work/$1" -G Ninja "${@:2}" > "$work/$1.txt"
  cmake --build "$work/$1" --target check >> "$work/$1.txt" || { cat "$work/$1.txt"; exit 1; }
}
there() { command -v "$1" > /dev/null || { echo "skipped: there is no $1"; return 1; }; }

build strict -DSTRICT=ON
"$work/strict/check"

# The linker would take one level's copy of a function that several define weakly, for all of them.
if find "$work/strict/native" -name "*.o" -exec nm --demangle {} + | grep " W "; then
  echo "these functions are shared between levels"
  exit 1
fi

build sanitized -DSANITIZE=address,undefined
for threads in 1 2; do OMP_NUM_THREADS=$threads "$work/sanitized/check"; done

if there clang++; then
  cmake -S ../../seqdens/native -B "$work/clang" -G Ninja -DSTRICT=ON -DCMAKE_CXX_COMPILER=clang++ > /dev/null
  cmake --build "$work/clang" > "$work/clang.txt" || { cat "$work/clang.txt"; exit 1; }
fi
if there qemu-x86_64 && [ "$(uname -m)" = x86_64 ]; then
  for processor in Nehalem max; do
    echo "emulated: $processor"
    qemu-x86_64 -cpu $processor "$work/strict/check"
  done
fi
if there qemu-aarch64 && there aarch64-linux-gnu-g++; then
  build arm -DSTRICT=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static
  for processor in cortex-a57 max; do
    echo "emulated: $processor"
    qemu-aarch64 -cpu $processor "$work/arm/check"
  done
fi
