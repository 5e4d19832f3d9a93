// The recurrence of reference.py for CPUs: all steps of a layer in one call, both directions.
//
// T steps, B sequences, F numbers of an input, H cells. Gates stand in the order i, f, g, o. Cells stand in blocks of
// 16, one vector; a thread owns some blocks with their columns of the weights, which stay in its cache from step to step.
// There is one barrier a step: what all threads have written is the left operand of the next product, hidden states
// going forward, derivatives of the pre-activations going back.
//
// A panel holds the 16 columns of a block of a right operand, (K, 16). All operands are padded with zeros.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <omp.h>
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
  x = x > limit ? broadcast(limit) : x;
  return x < -limit ? broadcast(-limit) : x;
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

template <class E> inline Vec load(const E* from, long lanes) {
  if (lanes == W) return load(from);
  E some[W] = {};
  std::memcpy(some, from, lanes * sizeof(E));
  return load(some);
}

template <class E> inline void store(E* to, Vec x, long lanes) {
  if (lanes == W) return store(to, x);
  E some[W];
  store(some, x);
  std::memcpy(to, some, lanes * sizeof(E));
}

inline void add(float* to, Vec x, long lanes) { store(to, load(to, lanes) + x, lanes); }

inline bf16 to_element(float x, bf16) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
inline float to_element(float x, float) { return x; }

constexpr long round_up(long n, long to) { return (n + to - 1) / to * to; }

// Left operands: (rows, K) of one step. Products: out[panel][row] is a vector, for all rows.

struct Float32 {
  using Element = float;
  static constexpr long ROWS = 1, DEPTH = 1;  // multiples that operands are padded to
  static constexpr int CHUNK = 12;            // rows that stand together: (K, CHUNK), and after them the next
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
  static void put_row(float* operand, long rows, long depth, long row, long k, const float* from, long count) {
    const long wide = std::min<long>(CHUNK, rows - row / CHUNK * CHUNK);
    float* to = at(operand, rows, depth, row, k);
    for (long each = 0; each < count; ++each) to[each * wide] = from[each];
  }
  static void pack(float* panel, long k, long lane, float x) { panel[k * W + lane] = x; }

  template <int R, int N> static void block(const float* a, const float* panels, long depth, float* out, long rows) {
    Vec sums[N][R] = {};
    for (long k = 0; k < depth; ++k)
      for (int n = 0; n < N; ++n) {
        const Vec b = load(panels + (n * depth + k) * W);
        for (int r = 0; r < R; ++r) sums[n][r] += a[k * R + r] * b;
      }
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < R; ++r) store(out + (n * rows + r) * W, sums[n][r]);
  }
  template <int N, int R> static void rest(const float* a, long count, const float* panels, long depth, float* out, long rows) {
    if constexpr (R > 0) count == R ? block<R, N>(a, panels, depth, out, rows) : rest<N, R - 1>(a, count, panels, depth, out, rows);
  }
  template <int N> static void product(const float* a, long rows, const float* panels, long depth, float* out) {
    constexpr int wide = N > 1 ? 2 : 1;
    for (int n = 0; n < N; n += wide, panels += wide * depth * W, out += wide * rows * W)
      for (long row = 0; row < rows; row += CHUNK)
        rest<wide, CHUNK>(a + row * depth, std::min<long>(CHUNK, rows - row), panels, depth, out + row * W, rows);
  }
};

#ifdef __AMX_BF16__
struct BFloat16 {
  using Element = bf16;
  static constexpr long ROWS = 16, DEPTH = 32;
  static void start() {
    struct alignas(64) { uint8_t palette = 1, row = 0, zero[14] = {}; uint16_t bytes[16] = {}; uint8_t rows[16] = {}; } shape;
    for (int tile = 0; tile < 8; ++tile) shape.bytes[tile] = 64, shape.rows[tile] = 16;
    _tile_loadconfig(&shape);
  }
  static void stop() { _tile_release(); }

  static void put(bf16* operand, long, long depth, long row, long k, Vec x) { store(operand + row * depth + k, x); }
  static void put_row(bf16* operand, long, long depth, long row, long k, const bf16* from, long count) {
    std::memcpy(operand + row * depth + k, from, count * sizeof(bf16));
  }
  static void pack(bf16* panel, long k, long lane, float x) {  // pairs of k stand together
    panel[k / 2 * 2 * W + lane * 2 + k % 2] = to_element(x, bf16());
  }

  // tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 columns
  template <int R, int N> static void block(const bf16* a, const bf16* panels, long depth, float* out, long rows) {
    _tile_zero(0);
    if (N > 1) _tile_zero(1);
    if (R > 1) _tile_zero(2);
    if (R > 1 && N > 1) _tile_zero(3);
    for (long k = 0; k < depth; k += 32) {
      _tile_loadd(6, panels + k * W, 64);
      if (N > 1) _tile_loadd(7, panels + (depth + k) * W, 64);
      _tile_loadd(4, a + k, depth * 2);
      _tile_dpbf16ps(0, 4, 6);
      if (N > 1) _tile_dpbf16ps(1, 4, 7);
      if (R > 1) {
        _tile_loadd(5, a + 16 * depth + k, depth * 2);
        _tile_dpbf16ps(2, 5, 6);
        if (N > 1) _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, out, 64);
    if (N > 1) _tile_stored(1, out + rows * W, 64);
    if (R > 1) _tile_stored(2, out + 16 * W, 64);
    if (R > 1 && N > 1) _tile_stored(3, out + (rows + 16) * W, 64);
  }
  template <int N> static void product(const bf16* a, long rows, const bf16* panels, long depth, float* out) {
    for (int n = 0; n < N; n += 2, panels += 2 * depth * W, out += 2 * rows * W) {
      constexpr int wide = N > 1 ? 2 : 1;
      long row = 0;
      for (; rows - row >= 32; row += 32) block<2, wide>(a + row * depth, panels, depth, out + row * W, rows);
      for (; row < rows; row += 16) block<1, wide>(a + row * depth, panels, depth, out + row * W, rows);
    }
  }
};
#endif

template <class E> E* aligned(std::unique_ptr<char[]>& owner, long count) {
  owner.reset(new char[count * sizeof(E) + 64]());
  return (E*)(((uintptr_t)owner.get() + 63) & ~(uintptr_t)63);
}

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
  explicit Share(long count)
      : first(count * omp_get_thread_num() / omp_get_num_threads()),
        last(count * (omp_get_thread_num() + 1) / omp_get_num_threads()) {}
};

// Columns of a left operand of the forward products: H of the hidden state, F of the input, each padded.
template <class P> struct Depth {
  long hidden, all;
  Depth(long F, long H) : hidden(round_up(H, std::max(P::DEPTH, W))), all(hidden + round_up(F, P::DEPTH)) {}
};

template <class P, class E = typename P::Element>
void pack_forward(long F, long H, const float* input_weight, const float* recurrent_weight, E* panels) {
  const Depth<P> depth(F, H);
  const long blocks = round_up(H, W) / W;
#pragma omp parallel for
  for (long panel = 0; panel < blocks * 4; ++panel) {
    E* to = panels + panel * depth.all * W;
    std::memset(to, 0, depth.all * W * sizeof(E));
    const long block = panel / 4, gate = panel % 4;
    for (long lane = 0; lane < std::min(W, H - block * W); ++lane) {
      const long row = gate * H + block * W + lane;
      for (long k = 0; k < H; ++k) P::pack(to, k, lane, recurrent_weight[row * H + k]);
      for (long k = 0; k < F; ++k) P::pack(to, depth.hidden + k, lane, input_weight[row * F + k]);
    }
  }
}

// `activations` holds the projected inputs with the bias where `bias` is null; else `inputs` are projected here.
template <class P, class E = typename P::Element>
void forward(long T, long B, long F, long H, const E* inputs, const E* panels, const float* peepholes, const float* bias,
             E* activations, E* hidden, float* cells) {
  const Depth<P> depth(F, H);
  const long blocks = round_up(H, W) / W, rows = round_up(B, P::ROWS);
  std::unique_ptr<char[]> owners[2];
  E* operands[2] = {aligned<E>(owners[0], rows * depth.all), aligned<E>(owners[1], rows * depth.all)};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks), rows_read(B);
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, 4 * rows * W);
    const auto read = [&](long t) {
      for (long row = rows_read.first; row < rows_read.last; ++row)
        P::put_row(operands[t % 2], rows, depth.all, row, depth.hidden, inputs + (t * B + row) * F, F);
    };
    if (T > 0) read(0);
    for (long block = own.first; block < own.last; ++block)
      for (long row = 0; row < B; ++row)
        P::put(operands[0], rows, depth.all, row, block * W, load(hidden + row * H + block * W, std::min(W, H - block * W)));
#pragma omp barrier
    for (long t = 0; t < T; ++t) {
      E* next = operands[(t + 1) % 2];
      if (t + 1 < T) read(t + 1);
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W, lanes = std::min(W, H - at);
        P::template product<4>(operands[t % 2], rows, panels + block * 4 * depth.all * W, depth.all, sums);
        Vec p[3];
        for (int gate = 0; gate < 3; ++gate) p[gate] = load(peepholes + gate * H + at, lanes);
        for (long row = 0; row < B; ++row) {
          E* gates = activations + (t * B + row) * 4 * H + at;
          const long state = (t * B + row) * H + at, after = state + B * H;
          const float* sum = sums + row * W;
          Vec z[4];
          for (int gate = 0; gate < 4; ++gate)
            z[gate] = load(sum + gate * rows * W) + (bias ? load(bias + gate * H + at, lanes) : load(gates + gate * H, lanes));
          const Vec before = load(cells + state, lanes);
          const Vec i = sigmoid(z[0] + p[0] * before), f = sigmoid(z[1] + p[1] * before), g = tanh(z[2]);
          const Vec c = f * before + i * g, o = sigmoid(z[3] + p[2] * c), h = o * tanh(c);
          store(gates, i, lanes), store(gates + H, f, lanes), store(gates + 2 * H, g, lanes), store(gates + 3 * H, o, lanes);
          store(cells + after, c, lanes), store(hidden + after, h, lanes);
          P::put(next, rows, depth.all, row, at, h);
        }
      }
#pragma omp barrier
    }
    P::stop();
  }
}

// `from_hidden` has a step every `strides[0]` elements and a sequence every `strides[1]`.
template <class P, class E = typename P::Element>
void backward(long T, long B, long H, const E* activations, const float* weight, const float* peepholes, const float* cells,
              const E* from_hidden, const long* strides, const float* from_cells, float limit, E* dz, float* d_peepholes,
              float* d_bias, float* dh, float* dc) {
  const long blocks = round_up(H, W) / W, depth = blocks * 4 * W, rows = round_up(B, P::ROWS);
  std::unique_ptr<char[]> owners[3];
  E* operands[2] = {aligned<E>(owners[0], rows * depth), aligned<E>(owners[1], rows * depth)};
  E* panels = aligned<E>(owners[2], blocks * depth * W);
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, (own.last - own.first) * rows * W);  // derivatives of the own hidden states
    for (long block = own.first; block < own.last; ++block)
      for (long from = 0; from < blocks; ++from)
        for (long gate = 0; gate < 4; ++gate)
          for (long k = 0; k < std::min(W, H - from * W); ++k)
            for (long lane = 0; lane < std::min(W, H - block * W); ++lane)
              P::pack(panels + block * depth * W, (from * 4 + gate) * W + k, lane,
                      weight[(gate * H + from * W + k) * H + block * W + lane]);
    for (long t = T - 1; t >= 0; --t) {
      E* operand = operands[t % 2];
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W, lanes = std::min(W, H - at);
        Vec p[3], d_p[3] = {}, d_b[4] = {};
        for (int gate = 0; gate < 3; ++gate) p[gate] = load(peepholes + gate * H + at, lanes);
        for (long row = 0; row < B; ++row) {
          const long state = (t * B + row) * H + at, after = state + B * H, first_gate = (t * B + row) * 4 * H + at;
          Vec gates[4];
          for (int gate = 0; gate < 4; ++gate) gates[gate] = load(activations + first_gate + gate * H, lanes);
          const Vec i = gates[0], f = gates[1], g = gates[2], o = gates[3];
          const Vec before = load(cells + state, lanes), cell = load(cells + after, lanes), tanh_c = tanh(cell);
          Vec h = load(sums + ((block - own.first) * rows + row) * W), c = load(dc + row * H + at, lanes);
          if (from_hidden) h += load(from_hidden + t * strides[0] + row * strides[1] + at, lanes);
          if (from_cells) c += load(from_cells + state, lanes);
          Vec d[4];
          d[3] = clamp(h * tanh_c * o * (1.0f - o), limit);
          c += h * o * (1.0f - tanh_c * tanh_c) + d[3] * p[2];
          d[0] = clamp(c * g * i * (1.0f - i), limit);
          d[1] = clamp(c * before * f * (1.0f - f), limit);
          d[2] = clamp(c * i * (1.0f - g * g), limit);
          store(dc + row * H + at, c * f + d[0] * p[0] + d[1] * p[1], lanes);
          d_p[0] += d[0] * before, d_p[1] += d[1] * before, d_p[2] += d[3] * cell;
          for (int gate = 0; gate < 4; ++gate) {
            d_b[gate] += d[gate];
            store(dz + first_gate + gate * H, d[gate], lanes);
            P::put(operand, rows, depth, row, 4 * at + gate * W, d[gate]);
          }
        }
        for (int gate = 0; gate < 3; ++gate) add(d_peepholes + gate * H + at, d_p[gate], lanes);
        for (int gate = 0; gate < 4; ++gate) add(d_bias + gate * H + at, d_b[gate], lanes);
      }
#pragma omp barrier
      long block = own.first;
      for (; block + 2 <= own.last; block += 2)
        P::template product<2>(operand, rows, panels + block * depth * W, depth, sums + (block - own.first) * rows * W);
      if (block < own.last)
        P::template product<1>(operand, rows, panels + block * depth * W, depth, sums + (block - own.first) * rows * W);
    }
    for (long block = own.first; block < own.last; ++block)
      for (long row = 0; row < B; ++row)
        store(dh + row * H + block * W, load(sums + ((block - own.first) * rows + row) * W), std::min(W, H - block * W));
    P::stop();
  }
}

}  // namespace

extern "C" {

// Whether the processor and the system multiply bfloat16 in tiles; to be asked before it is done.
int has_bf16() {
#ifdef __AMX_BF16__
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // asks Linux for the tiles' registers
#else
  return 0;
#endif
}

#define INTERFACE(P, E, NAME)                                                                                             \
  long depth_##NAME(long F, long H) { return Depth<P>(F, H).all; }                                                         \
  void pack_##NAME(long F, long H, const float* input_weight, const float* recurrent_weight, E* panels) {                  \
    pack_forward<P>(F, H, input_weight, recurrent_weight, panels);                                                         \
  }                                                                                                                        \
  void forward_##NAME(long T, long B, long F, long H, const E* inputs, const E* panels, const float* peepholes,            \
                      const float* bias, E* activations, E* hidden, float* cells) {                                        \
    forward<P>(T, B, F, H, inputs, panels, peepholes, bias, activations, hidden, cells);                                   \
  }                                                                                                                        \
  void backward_##NAME(long T, long B, long H, const E* activations, const float* weight, const float* peepholes,          \
                       const float* cells, const E* from_hidden, const long* strides, const float* from_cells,             \
                       float limit, E* dz, float* d_peepholes, float* d_bias, float* dh, float* dc) {                      \
    backward<P>(T, B, H, activations, weight, peepholes, cells, from_hidden, strides, from_cells, limit, dz, d_peepholes,  \
                d_bias, dh, dc);                                                                                           \
  }

INTERFACE(Float32, float, float32)
#ifdef __AMX_BF16__
INTERFACE(BFloat16, bf16, bf16)
#endif
}
