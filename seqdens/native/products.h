// Products of small matrices for the recurrence, in float32, bfloat16 and int8.
//
// A product has a left operand (rows, K) of one step, and panels: each holds 16 columns of the right operand, of a few k
// (GROUP: as many as fit into 4 bytes) all columns, then the next k. All operands are padded with zeros. out[panel][row] is
// a vector of sums: of int32 for int8, of float32 for the others.
//
// A type of products has: Element; ROWS and DEPTH, the multiples to which rows and K are padded; start and stop, around all
// work of a thread; put, which writes 16 numbers of a row into a left operand; value, a sum as float32; and product.

#pragma once

#include "simd.h"

namespace {

// How many rows and panels a block of sums has: as many as the registers hold beside what is multiplied.
#if defined __AVX512F__
constexpr int BLOCK_ROWS = 12, BLOCK_PANELS = 2;  // of 32 registers of 16 lanes
#elif defined __AVX2__ || defined __aarch64__
constexpr int BLOCK_ROWS = 6, BLOCK_PANELS = 1;  // of 16 registers of 8 lanes, or 32 of 4
#else
constexpr int BLOCK_ROWS = 2, BLOCK_PANELS = 1;  // of 16 registers of 4 lanes
#endif

inline int32_t four_bytes(const void* from) {
  int32_t four;
  memcpy(&four, from, 4);
  return four;
}

// What the instructions of the level do with a register of sums, a group of the left operand, and as many columns of it in a
// panel. Sums are registers and not vectors, which the compiler would keep in memory if they are wider.

struct MultiplyFloat32 {
  using Element = float;
  using Sum = VecPart;
  static constexpr long DEPTH = 16;
  static constexpr bool BIASED = false;
  static VecPart same(const float* a) { return *a - VecPart{}; }
  static Sum add(Sum sum, VecPart a, const float* panel) { return sum + a * *(const VecPart*)panel; }
};

#ifdef __AVX512BF16__
struct MultiplyBf16 {
  using Element = bf16;
  using Sum = VecPart;
  static constexpr long DEPTH = 32;
  static constexpr bool BIASED = false;
  static IntPart same(const bf16* a) { return four_bytes(a) - IntPart{}; }
  static Sum add(Sum sum, IntPart a, const bf16* panel) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh) * (const VecPart*)panel);
  }
};
#endif

#if defined __AVX512VNNI__ || defined __AVXVNNI__ || defined __ARM_FEATURE_DOTPROD
struct MultiplyInt8 {
  using Element = int8_t;
  using Sum = IntPart;
  static constexpr long DEPTH = 64;
#ifdef __x86_64__
  static constexpr bool BIASED = true;  // x86 multiplies unsigned by signed bytes: the left operand has 128 added
#else
  static constexpr bool BIASED = false;
#endif
  static IntPart same(const int8_t* a) { return four_bytes(a) - IntPart{}; }
  static Sum add(Sum sum, IntPart a, const int8_t* panel) {
    const IntPart b = *(const IntPart*)panel;
#if defined __AVX512VNNI__
    return (IntPart)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined __AVXVNNI__
    return (IntPart)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#else
    return (IntPart)vdotq_s32((int32x4_t)sum, (int8x16_t)a, (int8x16_t)b);
#endif
  }
};
#endif

// Products whose sums stay in vector registers. The left operand has BLOCK_ROWS rows together, of each group of k all rows.
template <class Multiply> struct Broadcasting {
  using Element = typename Multiply::Element;
  using Sum = typename Multiply::Sum;
  static constexpr long ROWS = 1, DEPTH = Multiply::DEPTH, GROUP = 4 / sizeof(Element);
  static constexpr long NEAR = 192 * GROUP;  // of K at a time: two panels of so many stay in the nearest cache
  static void start() {}
  static void stop() {}

  static void put(Element* operand, long rows, long depth, long row, long k, Vec x) {
    const long first = row / BLOCK_ROWS * BLOCK_ROWS, wide = smaller(BLOCK_ROWS, rows - first);
    Element* to = operand + first * depth + k * wide + (row - first) * GROUP;
    Element lanes[W];
    store(lanes, x);
    if constexpr (Multiply::BIASED)
      for (long lane = 0; lane < W; ++lane) lanes[lane] ^= -128;
    for (long lane = 0; lane < W; lane += GROUP) memcpy(to + lane * wide, lanes + lane, 4);
  }
  static Vec value(Vec sum) { return sizeof(Element) == 1 ? __builtin_convertvector((Int)sum, Vec) : sum; }

  template <int N> static void product(const Element* a, long rows, const Element* panels, long depth, float* out) {
    if (rows == 1) return block<1, N>(a, panels, depth, depth, true, out, rows);  // more sums that do not wait for each other
    constexpr int together = N < BLOCK_PANELS ? N : BLOCK_PANELS;
    for (int n = 0; n < N; n += together, panels += together * depth * W, out += together * rows * W)
      for (long k = 0; k < depth; k += NEAR)
        for (long row = 0; row < rows; row += BLOCK_ROWS) {
          const long wide = smaller(BLOCK_ROWS, rows - row), count = smaller(NEAR, depth - k);
          block_of<together, BLOCK_ROWS>(a + row * depth + k * wide, wide, panels + k * W, depth, count, k == 0, out + row * W, rows);
        }
  }

 private:
  // Finds the block of that many rows, `wide`, at most R.
  template <int N, int R>
  static void block_of(const Element* a, long wide, const Element* panels, long depth, long count, bool first, float* out, long rows) {
    if constexpr (R > 0) {
      if (wide == R) block<R, N>(a, panels, depth, count, first, out, rows);
      else block_of<N, R - 1>(a, wide, panels, depth, count, first, out, rows);
    }
  }

  template <int R, int N>
  static void block(const Element* a, const Element* panels, long depth, long count, bool first, float* out, long rows) {
    Sum sums[N][R][PARTS], bias[N][PARTS] = {};
    const auto sum_at = [&](int n, int r, int part) { return (Sum*)(out + (n * rows + r) * W + part * (W / PARTS)); };
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r)
        for (int part = 0; part < PARTS; ++part) sums[n][r][part] = first ? Sum{} : *sum_at(n, r, part);
    for (long k = 0; k < count; k += GROUP) {
      const auto columns = [&](int n, int part) { return panels + (n * depth + k) * W + part * (GROUP * W / PARTS); };
      for (int r = 0; r < R; ++r) {
        const auto each = Multiply::same(a + k * R + r * GROUP);  // used at once: more alive would push sums out of registers
        for (int n = 0; n < N; ++n)
          for (int part = 0; part < PARTS; ++part)
            sums[n][r][part] = Multiply::add(sums[n][r][part], each, columns(n, part));
      }
      if constexpr (Multiply::BIASED)
        for (int n = 0; n < N; ++n)
          for (int part = 0; part < PARTS; ++part)
            bias[n][part] = Multiply::add(bias[n][part], IntPart{} - 0x7f7f7f80, columns(n, part));
    }
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r)
        for (int part = 0; part < PARTS; ++part) *sum_at(n, r, part) = sums[n][r][part] - bias[n][part];
  }
};

using Float32 = Broadcasting<MultiplyFloat32>;

#if defined __AMX_BF16__ || defined __AMXBF16__  // as older clang has it
// Products of matrices in the processor's tiles, of 16 rows of 64 bytes. The left operand is row after row.
template <class E> struct Tiles {
  using Element = E;
  static constexpr bool INT8 = sizeof(E) == 1;
  static constexpr long ROWS = 16, DEPTH = 64 / sizeof(E);
  static void start() {
    struct alignas(64) {
      uint8_t palette = 1, row = 0, zero[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int tile = 0; tile < 8; ++tile) shape.bytes[tile] = 64, shape.rows[tile] = 16;
    _tile_loadconfig(&shape);
  }
  static void stop() { _tile_release(); }

  static void put(E* operand, long, long depth, long row, long k, Vec x) { store(operand + row * depth + k, x); }
  static Vec value(Vec sum) { return INT8 ? __builtin_convertvector((Int)sum, Vec) : sum; }

  template <int N> static void product(const E* a, long rows, const E* panels, long depth, float* out) {
    for (int n = 0; n < N; n += 2, panels += 2 * depth * W, out += 2 * rows * W) {
      constexpr int together = N > 1 ? 2 : 1;
      long row = 0;
      for (; rows - row >= 32; row += 32) block<2, together>(a + row * depth, panels, depth, out + row * W, rows);
      for (; row < rows; row += 16) block<1, together>(a + row * depth, panels, depth, out + row * W, rows);
    }
  }

 private:
#define MULTIPLY(sum, rows, columns) \
  { if constexpr (INT8) _tile_dpbssd(sum, rows, columns); else _tile_dpbf16ps(sum, rows, columns); }

  // tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 columns
  template <int R, int N> static void block(const E* a, const E* panels, long depth, float* out, long rows) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (R > 1) _tile_zero(2);
    if (R > 1 && N > 1) _tile_zero(3);
    for (long k = 0; k < depth; k += DEPTH) {
      _tile_loadd(6, panels + k * W, 64);
      if (N > 1) _tile_loadd(7, panels + (depth + k) * W, 64);
      _tile_loadd(4, a + k, depth * sizeof(E));
      MULTIPLY(0, 4, 6)
      if (N > 1) MULTIPLY(1, 4, 7)
      if (R > 1) {
        _tile_loadd(5, a + 16 * depth + k, depth * sizeof(E));
        MULTIPLY(2, 5, 6)
        if (N > 1) MULTIPLY(3, 5, 7)
      }
    }
    _tile_stored(0, out, 64);
    if (N > 1) _tile_stored(1, out + rows * W, 64);
    if (R > 1) _tile_stored(2, out + 16 * W, 64);
    if (R > 1 && N > 1) _tile_stored(3, out + (rows + 16) * W, 64);
  }
#undef MULTIPLY
};
using Bf16 = Tiles<bf16>;
using Int8 = Tiles<int8_t>;
#else
#ifdef __AVX512BF16__
using Bf16 = Broadcasting<MultiplyBf16>;
#endif
#if defined __AVX512VNNI__ || defined __AVXVNNI__ || defined __ARM_FEATURE_DOTPROD
using Int8 = Broadcasting<MultiplyInt8>;
#endif
#endif

// Room of zeros at first, that keeps what was written to it as long as it is wanted for the same.
template <class E> class Kept {
  Room<E> memory;
  long use[4] = {-1, -1, -1, -1};

 public:
  E* room(const long (&wanted)[4], long count) {
    if (memcmp(use, wanted, sizeof use)) memory.resize(count), memcpy(use, wanted, sizeof use);
    return memory.begin();
  }
};

// Operands and sums of states (B, N), one sequence every `stride` numbers: of columns, in blocks of 16, one thread's.

template <class P, class S>
void put_states(Share blocks, const S* states, long B, long N, long stride, typename P::Element* operand, long depth, long k) {
  const long rows = round_up(B, P::ROWS);
  for (long at = blocks.first * W; at < smaller(N, blocks.last * W); at += W)
    for (long row = 0; row < B; ++row)
      P::put(operand, rows, depth, row, k + at, load(states + row * stride + at, smaller(W, N - at)));
}

template <class P> void load_sums(Share blocks, const float* states, long B, long N, float* sums) {
  const long rows = round_up(B, P::ROWS);
  for (long at = blocks.first * W; at < smaller(N, blocks.last * W); at += W, sums += rows * W)
    for (long row = 0; row < B; ++row) store(sums + row * W, load(states + row * N + at, smaller(W, N - at)));
}

template <class P> void store_sums(Share blocks, const float* sums, long B, long N, float* states) {
  const long rows = round_up(B, P::ROWS);
  for (long at = blocks.first * W; at < smaller(N, blocks.last * W); at += W, sums += rows * W)
    for (long row = 0; row < B; ++row) store(states + row * N + at, load(sums + row * W), smaller(W, N - at));
}

template <class P, class E = typename P::Element>
void multiply(Share blocks, const E* operand, long B, const E* panels, long depth, float* sums) {
  const long rows = round_up(B, P::ROWS);
  long block = blocks.first;
  for (; block + 2 <= blocks.last; block += 2, sums += 2 * rows * W)
    P::template product<2>(operand, rows, panels + block * depth * W, depth, sums);
  if (block < blocks.last) P::template product<1>(operand, rows, panels + block * depth * W, depth, sums);
}

}  // namespace
