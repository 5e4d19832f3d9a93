// Vectors of 16 floats, which the compiler splits into what the level's registers hold, and what is done with them.
//
// Nothing here or in what includes it may have external linkage but the exported functions: each source is compiled once
// for each level, and the linker would take one level's copy of a shared function for all.

#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined __x86_64__
#include <immintrin.h>
#elif defined __aarch64__
#include <arm_neon.h>
#endif

// The exported name of a function: NAME(forward_float32) of level avx2 is forward_float32_avx2.
#define JOIN_(name, level) name##_##level
#define JOIN(name, level) JOIN_(name, level)
#define NAME(name) JOIN(name, LEVEL)
#define EXPORT extern "C" __attribute__((visibility("default")))

// Declared here, since not every compiler with OpenMP comes with its header.
extern "C" int omp_get_thread_num(void);
extern "C" int omp_get_num_threads(void);

namespace {

constexpr long W = 16;  // lanes of a vector
typedef float Vec __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef uint16_t Half __attribute__((vector_size(2 * W), aligned(2), may_alias));
typedef int8_t Byte __attribute__((vector_size(W), aligned(1), may_alias));
typedef uint16_t bf16;

// What one register of the level holds: a vector is PARTS of them.
#if defined __AVX512F__
constexpr long REGISTER = 64;
#elif defined __AVX2__
constexpr long REGISTER = 32;
#else
constexpr long REGISTER = 16;
#endif
constexpr long PARTS = 4 * W / REGISTER;
typedef float VecPart __attribute__((vector_size(REGISTER), aligned(4), may_alias));
typedef int32_t IntPart __attribute__((vector_size(REGISTER), aligned(4), may_alias));

constexpr long smaller(long a, long b) { return a < b ? a : b; }
constexpr long larger(long a, long b) { return a > b ? a : b; }
constexpr long round_up(long n, long to) { return (n + to - 1) / to * to; }

inline Vec broadcast(float x) { return x - Vec{}; }
inline Vec larger(Vec x, Vec y) { return x > y ? x : y; }
inline Vec absolute(Vec x) { return (Vec)((Int)x & 0x7fffffff); }
inline Vec with_sign(Vec x, Vec sign) { return (Vec)((Int)x ^ ((Int)sign & (Int)broadcast(-0.0f))); }

// NaN stays NaN.
inline VecPart clamp(VecPart x, float least, float most) {
  const VecPart low = least - VecPart{}, high = most - VecPart{};
#if defined __AVX512F__
  return _mm512_max_ps(low, _mm512_min_ps(high, x));  // the second operand if one is NaN
#elif defined __AVX2__
  return _mm256_max_ps(low, _mm256_min_ps(high, x));
#else
  x = x > high ? high : x;
  return x < low ? low : x;
#endif
}

inline VecPart reciprocal(VecPart x) {
#if defined __AVX512F__
  const VecPart y = _mm512_rcp14_ps(x);
  return y * (2.0f - x * y);
#else
  return 1.0f / x;
#endif
}

// Of x within [-87, 88], to which it is clamped; the relative error is below 2e-7.
inline VecPart exponential(VecPart x) {
  x = clamp(x, -87.0f, 88.0f);
  const VecPart shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the nearest whole number is in the low bits
  const VecPart whole = shifted - 12582912.0f;
  const VecPart rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  VecPart sum = rest * (1.0f / 5040) + 1.0f / 720;
  sum = sum * rest + 1.0f / 120;
  sum = sum * rest + 1.0f / 24;
  sum = sum * rest + 1.0f / 6;
  sum = sum * rest + 0.5f;
  sum = sum * rest + 1.0f;
  sum = sum * rest + 1.0f;
  return (VecPart)((IntPart)sum + ((IntPart)shifted << 23));
}

inline VecPart sigmoid(VecPart x) { return reciprocal(1.0f + exponential(-x)); }

inline VecPart tanh(VecPart x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

#ifndef __AVX512F__  // with which a vector is one register
// Does `work` with each register of a vector: what needs many steps keeps them out of memory so.
template <class Work> inline Vec by_register(Vec x, Work work) {
  VecPart parts[PARTS];
  memcpy(parts, &x, sizeof x);
  for (long part = 0; part < PARTS; ++part) parts[part] = work(parts[part]);
  memcpy(&x, parts, sizeof x);
  return x;
}

inline Vec clamp(Vec x, float least, float most) {
  return by_register(x, [=](VecPart part) { return clamp(part, least, most); });
}
inline Vec exponential(Vec x) {
  return by_register(x, [](VecPart part) { return exponential(part); });
}
inline Vec sigmoid(Vec x) {
  return by_register(x, [](VecPart part) { return sigmoid(part); });
}
inline Vec tanh(Vec x) {
  return by_register(x, [](VecPart part) { return tanh(part); });
}
#endif

template <class Join> inline float reduce(Vec x, Join join) {
  float lanes[W];
  memcpy(lanes, &x, sizeof lanes);
  for (long half = W / 2; half; half /= 2)
    for (long lane = 0; lane < half; ++lane) lanes[lane] = join(lanes[lane], lanes[lane + half]);
  return lanes[0];
}

inline float sum(Vec x) { return reduce(x, [](float a, float b) { return a + b; }); }
inline float largest(Vec x) { return reduce(x, [](float a, float b) { return a > b ? a : b; }); }

inline Vec load(const float* from) { return *(const Vec*)from; }
inline Vec load(const bf16* from) { return (Vec)(__builtin_convertvector(*(const Half*)from, Int) << 16); }
inline void store(float* to, Vec x) { *(Vec*)to = x; }
inline Half rounded(Vec x) {
#ifdef __AVX512BF16__
  return (Half)_mm512_cvtneps_pbh((__m512)x);
#else
  const Int bits = (Int)x;
  return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Half);
#endif
}
inline void store(bf16* to, Vec x) { *(Half*)to = rounded(x); }
inline Byte in_127ths(Vec x) {  // of -1 to 1
  return __builtin_convertvector((Int)(x * 127.0f + 12582912.0f) - 0x4b400000, Byte);
}
inline void store(int8_t* to, Vec x) { *(Byte*)to = in_127ths(x); }

template <long N> struct Constant {
  constexpr operator long() const { return N; }
};

// Does `work` with that number of lanes: all of them known to the compiler, which then leaves the rest out.
template <class Work> inline void with_lanes(long lanes, Work work) {
  if (lanes >= W) work(Constant<W>());
  else work(lanes);
}

// The first lanes; the others are `other`.
__attribute__((always_inline)) inline Vec load(const float* from, long lanes, float other = 0.0f) {
  if (lanes == W) return load(from);
#ifdef __AVX512F__
  return _mm512_mask_loadu_ps(broadcast(other), (1u << lanes) - 1, from);
#else
  Vec some = broadcast(other);
  memcpy(&some, from, lanes * sizeof(float));
  return some;
#endif
}

__attribute__((always_inline)) inline Vec load(const bf16* from, long lanes) {
  if (lanes == W) return load(from);
  bf16 some[W] = {};
  memcpy(some, from, lanes * sizeof(bf16));
  return load(some);
}

template <class E> __attribute__((always_inline)) inline void store(E* to, Vec x, long lanes) {
  if (lanes == W) return store(to, x);
  E some[W];
  store(some, x);
  memcpy(to, some, lanes * sizeof(E));
}

inline void add(float* to, Vec x, long lanes) { store(to, load(to, lanes) + x, lanes); }

// Numbers of the type E, zeros at first, that begin where a vector of 64 bytes may.
template <class E> class Room {
  char* memory;

 public:
  explicit Room(long count = 0) : memory(new char[count * sizeof(E) + 64]()) {}
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  ~Room() { delete[] memory; }
  void resize(long count) { delete[] memory, memory = nullptr, memory = new char[count * sizeof(E) + 64](); }
  E* begin() const { return (E*)(((uintptr_t)memory + 63) & ~(uintptr_t)63); }
};

// Numbers below 1e-38 count as zero while this lives: the processor is some hundred times slower with them, and trained
// networks have many. Only the calling thread is given back as it was: torch's products run in the same other threads,
// and are as slow with them.
struct FlushDenormals {
#if defined __x86_64__
  const unsigned before = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(before | 0x8040); }
  void restore() { _mm_setcsr(before); }
#elif defined __aarch64__
  uint64_t before;
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | 1u << 24));
  }
  void restore() { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#else
  void restore() {}
#endif
  ~FlushDenormals() {
    if (omp_get_thread_num() == 0) restore();
  }
};

struct Share {  // of `count` things, those of this thread
  long first, last;
  Share(long first, long last) : first(first), last(last) {}
  explicit Share(long count)
      : first(count * omp_get_thread_num() / omp_get_num_threads()),
        last(count * (omp_get_thread_num() + 1) / omp_get_num_threads()) {}
};

}  // namespace
