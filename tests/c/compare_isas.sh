#!/usr/bin/env bash
# Elementwise kernels give the same bits on every instruction set, NEON included: compiles the hash program for each set,
# runs it (AArch64 under qemu-user), and compares the output with the scalar set's. From the project's root.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-std=c11 -O2 -ffp-contract=off -Wall -Wextra -Werror -Isrc_c"

build() { # build NAME COMPILER ISA FLAGS...
  local name=$1 compiler=$2 isa=$3 dtype other
  shift 3
  for dtype in f32 f64; do
    $compiler $flags "$@" -DFA_ISA="$isa" -DFA_DTYPE=$dtype -c src_c/kernels.c -o "$work/$name.$dtype.o" &
    other=${other:-$!}
  done
  wait "$other"
  wait $!
  $compiler $flags -static -DFA_ISA="$isa" tests/c/activation_hash.c "$work/$name".f32.o "$work/$name".f64.o -lm -o "$work/$name"
}

if [ "$(uname -m)" = x86_64 ]; then
  build scalar cc scalar
  "$work/scalar" >"$work/expected"
  grep -q avx2 /proc/cpuinfo && build avx2 cc avx2 -mavx2 -mfma
  grep -q avx512dq /proc/cpuinfo && build avx512 cc avx512 -mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma
  build arm_scalar aarch64-linux-gnu-gcc scalar
  build neon aarch64-linux-gnu-gcc neon
else
  build scalar cc scalar
  "$work/scalar" >"$work/expected"
  build neon cc neon
fi
for name in avx2 avx512 arm_scalar neon; do
  [ -x "$work/$name" ] || continue
  run=
  case $(uname -m)/$name in x86_64/arm_scalar | x86_64/neon) run=qemu-aarch64 ;; esac
  $run "$work/$name" >"$work/got"
  if ! diff "$work/expected" "$work/got" >"$work/diff"; then
    echo "$name differs from scalar:" && head -n 20 "$work/diff" && exit 1
  fi
  echo "$name: $(wc -l <"$work/got") hashes, all as scalar"
done
