// Products of small matrices for the recurrence, in float32, bfloat16 and int8, and the vectors that they are made of.
//
// A panel holds 16 columns of a right operand, (K, 16). All operands are padded with zeros.

#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <omp.h>
#include <type_traits>
#ifdef __SSE2__
#include <immintrin.h>
#endif
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr long W = 16;  // lanes of a vector
typedef float Vec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint16_t Half __attribute__((vector_size(2 * W), aligned(2), may_alias));
typedef int8_t Byte __attribute__((vector_size(W), aligned(1), may_alias));
typedef uint16_t bf16;

inline Vec broadcast(float x) { return x - Vec{}; }

inline Vec reciprocal(Vec x) {
#ifdef __AVX512F__
  Vec y = _mm512_rcp14_ps(x);
  return y * (2.0f - x * y);
#else
  return 1.0f / x;
#endif
}

inline Vec clamp(Vec x, float limit) {
#ifdef __AVX512F__
  return _mm512_max_ps(broadcast(-limit), _mm512_min_ps(broadcast(limit), x));  // the second of what is not a number
#else
  x = x > limit ? broadcast(limit) : x;
  return x < -limit ? broadcast(-limit) : x;
#endif
}

inline Vec exponential(Vec x) {
  x = clamp(x, 87.0f);
  Vec shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the nearest whole number is in the low bits
  Vec whole = shifted - 12582912.0f;
  Vec rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  Vec sum = rest * (1.0f / 720) + 1.0f / 120;
  sum = sum * rest + 1.0f / 24;
  sum = sum * rest + 1.0f / 6;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  return (Vec)((Int)sum + ((Int)shifted << 23));
}

inline Vec sigmoid(Vec x) { return reciprocal(1.0f + exponential(-x)); }
inline Vec tanh(Vec x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

inline Vec load(const float* from) { return *(const Vec*)from; }
inline void store(float* to, Vec x) { *(Vec*)to = x; }
inline Vec load(const bf16* from) { return (Vec)(__builtin_convertvector(*(const Half*)from, Int) << 16); }
inline Half rounded(Vec x) {
  Int bits = (Int)x;
  return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Half);
}
inline void store(bf16* to, Vec x) { *(Half*)to = rounded(x); }
inline void store(int8_t* to, Vec x) {  // of -1 to 1, as 127ths
  *(Byte*)to = __builtin_convertvector((Int)(x * 127.0f + 12582912.0f) - 0x4b400000, Byte);
}

// Does `work` with that number of lanes: all of them known to the compiler, which then leaves the rest out.
template <class Work> inline void with_lanes(long lanes, Work work) {
  if (lanes >= W) work(std::integral_constant<long, W>());
  else work(lanes);
}

template <class E> __attribute__((always_inline)) inline Vec load(const E* from, long lanes) {
  if (lanes == W) return load(from);
  E some[W] = {};
  std::memcpy(some, from, lanes * sizeof(E));
  return load(some);
}

template <class E> __attribute__((always_inline)) inline void store(E* to, Vec x, long lanes) {
  if (lanes == W) return store(to, x);
  E some[W];
  store(some, x);
  std::memcpy(to, some, lanes * sizeof(E));
}

inline void add(float* to, Vec x, long lanes) { store(to, load(to, lanes) + x, lanes); }

constexpr long round_up(long n, long to) { return (n + to - 1) / to * to; }

// Left operands: (rows, K) of one step. Products: out[panel][row] is a vector, for all rows.

struct Float32 {
  using Element = float;
  static constexpr long ROWS = 1, DEPTH = 1;  // multiples that operands are padded to
  static constexpr int CHUNK = 12;            // rows that stand together: (K, CHUNK), and after them the next
  static constexpr long NEAR = 192;           // of K at a time: two panels of so many stay in the nearest cache
  static void start() {}
  static void stop() {}

  static float* at(float* operand, long rows, long depth, long row, long k) {
    const long first = row / CHUNK * CHUNK, wide = std::min<long>(CHUNK, rows - first);
    return operand + first * depth + k * wide + (row - first);
  }
  static void put(float* operand, long rows, long depth, long row, long k, Vec x) {
    const long wide = std::min<long>(CHUNK, rows - row / CHUNK * CHUNK);
    float* to = at(operand, rows, depth, row, k);
    for (long lane = 0; lane < W; ++lane) to[lane * wide] = x[lane];
  }
  static Vec value(Vec sum) { return sum; }

  template <int R, int N> static void block(const float* a, const float* panels, long depth, long count, bool first, float* out, long rows) {
    Vec sums[N][R];
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r) sums[n][r] = first ? Vec{} : load(out + (n * rows + r) * W);
    for (long k = 0; k < count; ++k) {
      Vec b[N];
      for (int n = 0; n < N; ++n) b[n] = load(panels + (n * depth + k) * W);
      for (int r = 0; r < R; ++r) {
        const Vec each = broadcast(a[k * R + r]);  // used at once: more of them alive would push sums out of registers
        for (int n = 0; n < N; ++n) sums[n][r] += each * b[n];
      }
    }
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r) store(out + (n * rows + r) * W, sums[n][r]);
  }
  template <int N, int R> static void rest(const float* a, long wide, const float* panels, long depth, long count, bool first, float* out, long rows) {
    if constexpr (R > 0) {
      if (wide == R) block<R, N>(a, panels, depth, count, first, out, rows);
      else rest<N, R - 1>(a, wide, panels, depth, count, first, out, rows);
    }
  }
  template <int N> static void product(const float* a, long rows, const float* panels, long depth, float* out) {
    constexpr int together = N > 1 ? 2 : 1;
    for (int n = 0; n < N; n += together, panels += together * depth * W, out += together * rows * W)
      for (long k = 0; k < depth; k += NEAR)
        for (long row = 0; row < rows; row += CHUNK) {
          const long wide = std::min<long>(CHUNK, rows - row), count = std::min(NEAR, depth - k);
          rest<together, CHUNK>(a + row * depth + k * wide, wide, panels + k * W, depth, count, k == 0, out + row * W, rows);
        }
  }
};

#if defined __AMX_BF16__ && defined __AMX_INT8__
// Tiles are 16 rows of 64 bytes; in a panel, as many k stand together as fit into 4 bytes.
template <class E> struct Tiles {
  using Element = E;
  static constexpr bool INT8 = sizeof(E) == 1;
  static constexpr long ROWS = 16, DEPTH = 64 / sizeof(E);
  static void start() {
    struct alignas(64) { uint8_t palette = 1, row = 0, zero[14] = {}; uint16_t bytes[16] = {}; uint8_t rows[16] = {}; } shape;
    for (int tile = 0; tile < 8; ++tile) shape.bytes[tile] = 64, shape.rows[tile] = 16;
    _tile_loadconfig(&shape);
  }
  static void stop() { _tile_release(); }

  static void put(E* operand, long, long depth, long row, long k, Vec x) { store(operand + row * depth + k, x); }
  static Vec value(Vec sum) { return INT8 ? __builtin_convertvector((Int)sum, Vec) : sum; }

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
  template <int N> static void product(const E* a, long rows, const E* panels, long depth, float* out) {
    for (int n = 0; n < N; n += 2, panels += 2 * depth * W, out += 2 * rows * W) {
      constexpr int together = N > 1 ? 2 : 1;
      long row = 0;
      for (; rows - row >= 32; row += 32) block<2, together>(a + row * depth, panels, depth, out + row * W, rows);
      for (; row < rows; row += 16) block<1, together>(a + row * depth, panels, depth, out + row * W, rows);
    }
  }
};
#define TILES
#endif

template <class E> E* aligned(std::unique_ptr<char[]>& owner, long count) {
  owner.reset(new char[count * sizeof(E) + 64]());
  return (E*)(((uintptr_t)owner.get() + 63) & ~(uintptr_t)63);
}

// Room of zeros at first, that keeps what was written to it as long as it is wanted for the same.
template <class E> class Kept {
  std::unique_ptr<char[]> owner;
  std::array<long, 4> use = {};
  E* begin = nullptr;

 public:
  E* room(std::array<long, 4> wanted, long count) {
    if (use != wanted) begin = aligned<E>(owner, count), use = wanted;
    return begin;
  }
};

// Numbers below 1e-38 count as zero while this lives: the processor is some hundred times slower with them, and trained
// networks have many. Only the calling thread is given back as it was: torch's products run in the same other threads,
// and are as slow with them.
struct FlushDenormals {
#ifdef __SSE2__
  const unsigned before = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(before | 0x8040); }
  ~FlushDenormals() {
    if (omp_get_thread_num() == 0) _mm_setcsr(before);
  }
#endif
};

struct Share {  // of `count` things, those of this thread
  long first, last;
  Share(long first, long last) : first(first), last(last) {}
  explicit Share(long count)
      : first(count * omp_get_thread_num() / omp_get_num_threads()),
        last(count * (omp_get_thread_num() + 1) / omp_get_num_threads()) {}
};

// Operands and sums of states (B, N), one sequence every `stride` numbers: of columns, in blocks of 16, one thread's.

template <class P, class S>
void put_states(Share blocks, const S* states, long B, long N, long stride, typename P::Element* operand, long depth, long k) {
  const long rows = round_up(B, P::ROWS);
  for (long at = blocks.first * W; at < std::min(N, blocks.last * W); at += W)
    for (long row = 0; row < B; ++row)
      P::put(operand, rows, depth, row, k + at, load(states + row * stride + at, std::min(W, N - at)));
}

template <class P> void load_sums(Share blocks, const float* states, long B, long N, float* sums) {
  const long rows = round_up(B, P::ROWS);
  for (long at = blocks.first * W; at < std::min(N, blocks.last * W); at += W, sums += rows * W)
    for (long row = 0; row < B; ++row) store(sums + row * W, load(states + row * N + at, std::min(W, N - at)));
}

template <class P> void store_sums(Share blocks, const float* sums, long B, long N, float* states) {
  const long rows = round_up(B, P::ROWS);
  for (long at = blocks.first * W; at < std::min(N, blocks.last * W); at += W, sums += rows * W)
    for (long row = 0; row < B; ++row) store(states + row * N + at, load(sums + row * W), std::min(W, N - at));
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
