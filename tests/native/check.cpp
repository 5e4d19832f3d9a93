// Every level of the compiled library that runs here, held to plain code in double precision.
//
// T steps, B sequences, H cells, F inputs, L layers, A characters, U places of a text, K Gaussians. Gates stand in the order
// i, f, g, o, peepholes in the order i, f, o. What is compared is the norm of a difference, as a share of the norm of what is
// right. Arrays have exact sizes, so that a sanitizer sees what is read or written beyond them, and what a function has to set
// is NaN before. Numbers that matrix products see are rounded here as there: what is left of an error is the function's own.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

typedef uint16_t bf16;
typedef std::vector<double> Exact;
typedef std::vector<float> Floats;
template <size_t N> using Sizes = std::vector<std::array<long, N>>;

extern "C" bool can_run(const char*);

struct Layer {
  const void* panels;
  const float *scales, *input_weight, *peepholes, *bias;
};
struct Window {
  long A, U, K;
  const int32_t* characters;
  const float *panels, *backward_panels, *bias;
};
struct Names {  // of a level and a type of products
  const char *level, *type;
  std::string of(const char* function) const { return std::string(function) + (*type ? "_" : "") + type + "_" + level; }
};

// The functions of a level, null where it has none.
template <class E> struct Training {
  void (*forward)(long, long, long, const E*, const float*, const E*, const float*, E*, E*, float*);
  void (*backward)(long, long, long, const E*, const E*, const float*, const float*, const float*, const E*, const long*,
                   const float*, float, E*, float*, float*, float*, float*);
  void (*window_forward)(long, long, long, const E*, const float*, const E*, const float*, E*, E*, float*, const Window*,
                         const float*, const float*, float*, float*, float*, float*);
  void (*window_backward)(long, long, long, const E*, const E*, const float*, const float*, const float*, const E*,
                          const long*, const float*, float, E*, float*, float*, float*, float*, const Window*,
                          const float*, const float*, const float*, const float*, float, float*, float*, float*);
};
template <class S> using Step = void (*)(long, long, long, long, const float*, const Layer*, const S*, const float*, S*, float*);
typedef void (*WindowStep)(long, long, long, long, const float*, const Layer*, const float*, const float*, float*, float*,
                           const Window*, const float*, const float*, float*, float*, bool*);
typedef void (*Mixture)(long, long, const float* const*, const long*, const float*, float*, const float*, float*);
typedef void (*Draw)(long, long, long, const float*, const long*, const float*, double, float*);

#define WEAK(type, name) extern "C" std::remove_pointer_t<type> name __attribute__((weak));
#define TRAINING(E, type, level)                                                      \
  WEAK(decltype(Training<E>::forward), forward_##type##_##level)                      \
  WEAK(decltype(Training<E>::backward), backward_##type##_##level)                    \
  WEAK(decltype(Training<E>::window_forward), window_forward_##type##_##level)        \
  WEAK(decltype(Training<E>::window_backward), window_backward_##type##_##level)      \
  WEAK(WindowStep, window_step_##type##_##level)
#define FUNCTIONS(type, level) \
  {forward_##type##_##level, backward_##type##_##level, window_forward_##type##_##level, window_backward_##type##_##level}
#define FLOAT32(level)                                                                                                \
  TRAINING(float, float32, level)                                                                                     \
  WEAK(Step<float>, step_float32_##level) WEAK(Mixture, mixture_##level) WEAK(Draw, draw_##level)
#define BF16(level) TRAINING(bf16, bf16, level) WEAK(Step<bf16>, step_bf16_##level)
#define INT8(level) WEAK(Step<float>, step_int8_##level)
FLOAT32(generic) FLOAT32(neon) FLOAT32(avx2) FLOAT32(avx512)
BF16(avx512_bf16) BF16(amx)
INT8(neon_dot) INT8(avx_vnni) INT8(avx512_vnni) INT8(amx)

struct Result {
  std::string function;
  double error, most;
};
std::vector<Result> results;  // of each function the largest error
int passed = 0, failed = 0;

void judge(const std::string& function, const std::string& what, double error, double most) {
  const bool good = error <= most;
  (good ? passed : failed)++;
  if (!good) std::printf("FAILED %s, %s: %.2g, but at most %g\n", function.c_str(), what.c_str(), error, most);
  for (Result& each : results)
    if (each.function == function) return (void)(each.error = std::max(each.error, error));
  results.push_back({function, error, most});
}

void report() {  // on a level
  for (const Result& each : results) std::printf("%-32s %.1e of %g\n", each.function.c_str(), each.error, each.most);
  results.clear();
}

std::mt19937 generator;  // starts anew for each function, so that all levels see the same numbers

Exact draw(long count, double scale) {
  std::normal_distribution<float> normal;
  Exact drawn(count);
  for (double& each : drawn) each = (float)(scale * normal(generator));
  return drawn;
}

bf16 rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
template <class E> E to(double x) {
  if constexpr (sizeof(E) == 4) return (E)x;
  else if constexpr (sizeof(E) == 2) return rounded((float)x);
  else return (E)x;
}
double from(float x) { return x; }
double from(bf16 x) {
  const uint32_t bits = (uint32_t)x << 16;
  float wide;
  std::memcpy(&wide, &bits, 4);
  return wide;
}
template <class E> std::vector<E> cast(const Exact& x) {
  std::vector<E> all(x.size());
  for (size_t at = 0; at < x.size(); ++at) all[at] = to<E>(x[at]);
  return all;
}
template <class E> std::vector<E> unset(long count) { return std::vector<E>(count, to<E>(NAN)); }

// What a product of elements E sees of a number: int8 has 127ths.
template <class E> double seen(double x) { return std::nearbyint((float)x * 127.0f); }
template <> double seen<float>(double x) { return x; }
template <> double seen<bf16>(double x) { return from(rounded((float)x)); }
template <class E> Exact all_seen(Exact x) {
  for (double& each : x) each = seen<E>(each);
  return x;
}

template <class E> double error(const std::vector<E>& found, const Exact& wanted) {
  double difference = 0, norm = 0;
  for (size_t at = 0; at < wanted.size(); ++at)
    difference += std::pow(from(found[at]) - wanted[at], 2), norm += wanted[at] * wanted[at];
  const double share = std::sqrt(difference) / std::fmax(std::sqrt(norm), 1e-30);  // weights below the exponential's least
  return share == share ? share : INFINITY;
}

long up(long n, long to) { return (n + to - 1) / to * to; }
long depth_of(size_t element) { return element == 4 ? 16 : element == 2 ? 32 : 64; }

// Panels of 16 columns of (K, columns): of a few k all columns, then the next.
template <class E> void add_panel(std::vector<E>& panels, long K, long group, const std::vector<std::vector<double>>& columns) {
  for (long k = 0; k < K; k += group)
    for (long column = 0; column < 16; ++column)
      for (long part = 0; part < group; ++part) panels.push_back(to<E>(columns[column][k + part]));
}

// Weights (gates N, K of each) as right operands, one below the other; every block of 16 of N has its gates together.
template <class E> std::vector<E> forward_panels(const std::vector<std::pair<Exact, long>>& weights, long gates, long N) {
  std::vector<E> panels;
  for (long block = 0; block < up(N, 16) / 16; ++block)
    for (long gate = 0; gate < gates; ++gate) {
      std::vector<std::vector<double>> columns(16);
      for (long lane = 0; lane < 16; ++lane)
        for (const auto& [weight, K] : weights)
          for (long k = 0; k < up(K, depth_of(sizeof(E))); ++k) {
            const long row = block * 16 + lane;
            columns[lane].push_back(row < N && k < K ? weight[(gate * N + row) * K + k] : 0);
          }
      add_panel(panels, columns[0].size(), 4 / sizeof(E), columns);
    }
  panels.shrink_to_fit();
  return panels;
}

// The same weights (gates N, K) as right operands for derivatives of their rows.
template <class E> std::vector<E> backward_panels(const Exact& weight, long gates, long N, long K) {
  std::vector<E> panels;
  for (long first = 0; first < up(K, 16); first += 16) {
    std::vector<std::vector<double>> columns(16);
    for (long lane = 0; lane < 16; ++lane)
      for (long row = 0; row < up(N, 16); row += 16)
        for (long gate = 0; gate < gates; ++gate)
          for (long n = row; n < row + 16; ++n)
            columns[lane].push_back(n < N && first + lane < K ? weight[(gate * N + n) * K + first + lane] : 0);
    add_panel(panels, columns[0].size(), 4 / sizeof(E), columns);
  }
  panels.shrink_to_fit();
  return panels;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double clamp(double x, double limit) { return std::fmin(std::fmax(x, -limit), limit); }

// (rows, blocks of K, 3, 16) of (rows, 3, K).
Exact in_blocks(const Exact& moves, long K) {
  const long blocks = up(K, 16) / 16, rows = moves.size() / (3 * K);
  Exact found(rows * blocks * 48, 0);
  for (long row = 0; row < rows; ++row)
    for (long part = 0; part < 3; ++part)
      for (long k = 0; k < K; ++k) found[(row * blocks + k / 16) * 48 + part * 16 + k % 16] = moves[(row * 3 + part) * K + k];
  return found;
}
template <class E> std::vector<E> of_blocks(const std::vector<E>& moves, long rows, long K) {
  const long blocks = up(K, 16) / 16;
  std::vector<E> found;
  for (long row = 0; row < rows; ++row)
    for (long part = 0; part < 3; ++part)
      for (long k = 0; k < K; ++k) found.push_back(moves[(row * blocks + k / 16) * 48 + part * 16 + k % 16]);
  return found;
}

// What reads texts (B, U) of any length from 0 to U - 1.
struct Reader {
  long H, A, U, K;
  Exact M, m;  // (3K, H), (3K,)
  std::vector<int32_t> text;
  Floats panels, backward_panels, bias;

  Reader(long steps, long B, long H, long A, long U, long K)
      : H(H), A(A), U(U), K(K), M(draw(3 * K * H, 1 / std::sqrt(H))), m(draw(3 * K, 0.3)), text(B * U, (int32_t)A) {
    for (long k = 0; k < K; ++k) m[k] -= std::log(K), m[2 * K + k] += std::log(2.0 * U / (3 * steps));
    for (long b = 0; b < B; ++b)
      for (long u = 0; u < (b * 7 + 3) % U; ++u) text[b * U + u] = (int32_t)(generator() % A);
    panels = forward_panels<float>({{M, H}}, 3, K), backward_panels = ::backward_panels<float>(M, 3, K, H);
    bias = cast<float>(in_blocks(m, K));
  }
  Window window() const { return {A, U, K, text.data(), panels.data(), backward_panels.data(), bias.data()}; }
  long character(long b, long u) const { return text[b * U + u]; }

  void read(long b, const double* hidden, const double* before, double* moves, double* kappa, double* phi, double* window) const {
    for (long n = 0; n < 3 * K; ++n) {
      moves[n] = m[n];
      for (long j = 0; j < H; ++j) moves[n] += M[n * H + j] * hidden[j];
      moves[n] = std::exp(moves[n]);
    }
    for (long k = 0; k < K; ++k) {
      kappa[k] = before[k] + moves[2 * K + k];
      for (long u = 0; u < U; ++u) phi[u] += moves[k] * std::exp(-moves[K + k] * std::pow(kappa[k] - u - 1, 2));
    }
    for (long u = 0; u < U && character(b, u) < A; ++u) window[character(b, u)] += phi[u];
  }

  // The logarithm of by how much the place after the text weighs more than the heaviest of its characters.
  double ahead(long b, const double* moves, const double* kappa) const {
    double most = -INFINITY;
    for (long u = 0;; ++u) {
      double top = -INFINITY, sum = 0;
      const auto logarithm = [&](long k) { return std::log(moves[k]) - moves[K + k] * std::pow(kappa[k] - u - 1, 2); };
      for (long k = 0; k < K; ++k) top = std::max(top, logarithm(k));
      for (long k = 0; k < K; ++k) sum += std::exp(logarithm(k) - top);
      if (character(b, u) == A) return top + std::log(sum) - most;
      most = std::max(most, top + std::log(sum));
    }
  }
};

// A layer, with or without a window, as the equations say, with products of elements E.
template <class E> struct Case {
  long T, B, H, A, U, K;
  double limit, window_limit;
  Exact gates, recurrent, peepholes, h0, c0, of_window, w0, kappa0;
  Reader reader;

  Case(long T, long B, long H, long A, long U, long K, double limit)
      : T(T), B(B), H(H), A(A), U(U), K(K), limit(limit), window_limit(limit / 3), gates(all_seen<E>(draw(T * B * 4 * H, 1))),
        recurrent(all_seen<E>(draw(4 * H * H, 1 / std::sqrt(H)))), peepholes(draw(3 * H, 0.3)),
        h0(all_seen<E>(draw(B * H, 0.5))), c0(draw(B * H, 1)), of_window(all_seen<E>(draw(4 * H * A, 1 / std::sqrt(A)))),
        w0(draw(B * A, 0.5)), kappa0(draw(B * K, 0.5)), reader(T, B, H, A, U, K) {
    for (double& each : kappa0) each = std::fabs(each);
  }

  Exact hidden, cells, activations, windows, kappa, phi, moves;

  void forward(bool reads) {
    hidden.assign(T * B * H, 0), cells = hidden, activations.assign(T * B * 4 * H, 0);
    windows.assign(T * B * A, 0), kappa.assign(T * B * K, 0), phi.assign(T * B * U, 0), moves.assign(T * B * 3 * K, 0);
    for (long t = 0; t < T; ++t)
      for (long b = 0; b < B; ++b) {
        const double* h = t ? &hidden[((t - 1) * B + b) * H] : &h0[b * H];
        const double* c = t ? &cells[((t - 1) * B + b) * H] : &c0[b * H];
        const double* w = t ? &windows[((t - 1) * B + b) * A] : &w0[b * A];
        double* act = &activations[(t * B + b) * 4 * H];
        for (long n = 0; n < 4 * H; ++n) {
          act[n] = gates[(t * B + b) * 4 * H + n];
          for (long k = 0; k < H; ++k) act[n] += recurrent[n * H + k] * seen<E>(h[k]);
          for (long a = 0; reads && a < A; ++a) act[n] += of_window[n * A + a] * seen<E>(w[a]);
        }
        for (long j = 0; j < H; ++j) {
          act[j] = sigmoid(act[j] + peepholes[j] * c[j]), act[H + j] = sigmoid(act[H + j] + peepholes[H + j] * c[j]);
          act[2 * H + j] = std::tanh(act[2 * H + j]);
          const double cell = act[H + j] * c[j] + act[j] * act[2 * H + j];
          act[3 * H + j] = sigmoid(act[3 * H + j] + peepholes[2 * H + j] * cell);
          cells[(t * B + b) * H + j] = cell, hidden[(t * B + b) * H + j] = act[3 * H + j] * std::tanh(cell);
        }
        for (long n = 0; n < 4 * H; ++n) act[n] = seen<E>(act[n]);  // as they are kept for the way back
        const long at = t * B + b;
        if (reads)
          reader.read(b, &hidden[at * H], t ? &kappa[(at - B) * K] : &kappa0[b * K], &moves[at * 3 * K], &kappa[at * K],
                      &phi[at * U], &windows[at * A]);
      }
  }

  Exact dz, d_peepholes, d_bias, dh, dc, dw, dk, d_moves;

  // Derivatives are added to those that there are.
  void backward(bool reads, const Exact& from_hidden, const Exact& from_cells, const Exact& from_windows,
                const Exact& from_kappa) {
    dz.assign(T * B * 4 * H, 0), d_moves.assign(T * B * 3 * K, 0);
    for (long t = T - 1; t >= 0; --t)
      for (long b = 0; b < B; ++b) {
        const long at = t * B + b;
        for (long a = 0; reads && a < A; ++a) dw[b * A + a] += from_windows[at * A + a];
        for (long k = 0; reads && k < K; ++k) dk[b * K + k] += from_kappa[at * K + k];
        if (reads) unread(at, b);
        for (long j = 0; j < H; ++j) {
          const double *act = &activations[at * 4 * H], cell = cells[at * H + j], tanh = std::tanh(cell);
          const double i = act[j], f = act[H + j], g = act[2 * H + j], o = act[3 * H + j];
          const double before = t ? cells[(at - B) * H + j] : c0[b * H + j];
          const double h = dh[b * H + j] + from_hidden[at * H + j];
          double c = dc[b * H + j] + from_cells[at * H + j], *d = &dz[at * 4 * H];
          d[3 * H + j] = clamp(h * tanh * o * (1 - o), limit);
          c += h * o * (1 - tanh * tanh) + d[3 * H + j] * peepholes[2 * H + j];
          d[j] = clamp(c * g * i * (1 - i), limit), d[H + j] = clamp(c * before * f * (1 - f), limit);
          d[2 * H + j] = clamp(c * i * (1 - g * g), limit);
          d_peepholes[j] += d[j] * before, d_peepholes[H + j] += d[H + j] * before, d_peepholes[2 * H + j] += d[3 * H + j] * cell;
          for (long gate = 0; gate < 4; ++gate) d_bias[gate * H + j] += d[gate * H + j];
          dc[b * H + j] = c * f + d[j] * peepholes[j] + d[H + j] * peepholes[H + j];
        }
        for (long k = 0; k < H; ++k) {
          dh[b * H + k] = 0;
          for (long n = 0; n < 4 * H; ++n) dh[b * H + k] += seen<E>(dz[at * 4 * H + n]) * recurrent[n * H + k];
        }
        for (long a = 0; a < A; ++a) {
          dw[b * A + a] = 0;
          for (long n = 0; reads && n < 4 * H; ++n) dw[b * A + a] += seen<E>(dz[at * 4 * H + n]) * of_window[n * A + a];
        }
      }
  }

  void unread(long at, long b) {
    for (long k = 0; k < K; ++k) {
      const double *move = &moves[at * 3 * K], a = move[k], narrow = move[K + k], place = kappa[at * K + k];
      double sum = 0, slope = 0, curve = 0;
      for (long u = 0; u < U && reader.character(b, u) < A; ++u) {
        const double away = place - u - 1, some = dw[b * A + reader.character(b, u)] * std::exp(-narrow * away * away);
        sum += some, slope += some * away, curve += some * away * away;
      }
      dk[b * K + k] -= 2 * a * narrow * slope;
      double* d = &d_moves[at * 3 * K];
      d[k] = clamp(sum * a, window_limit), d[K + k] = clamp(-curve * a * narrow, window_limit);
      d[2 * K + k] = clamp(dk[b * K + k] * move[2 * K + k], window_limit);
    }
    for (long j = 0; j < H; ++j)
      for (long n = 0; n < 3 * K; ++n) dh[b * H + j] += d_moves[at * 3 * K + n] * reader.M[n * H + j];
  }
};

template <class E> void check_layer(const Names& names, const Training<E>& with, Case<E> wanted, bool reads, bool given,
                                      double most) {
  const auto [T, B, H, A, U, K] = std::tuple(wanted.T, wanted.B, wanted.H, wanted.A, wanted.U, wanted.K);
  const std::string prefix = reads ? "window_" : "",
                    sizes = " of T=" + std::to_string(T) + " B=" + std::to_string(B) + " H=" + std::to_string(H);
  const auto hold = [&](const char* function, const char* part, const auto& found, const Exact& exact) {
    judge(names.of((prefix + function).c_str()), part + sizes, error(found, exact), most);
  };
  const auto peepholes = cast<float>(wanted.peepholes), c0 = cast<float>(wanted.c0);
  const auto w0 = cast<float>(wanted.w0), kappa0 = cast<float>(wanted.kappa0);
  const auto h0 = cast<E>(wanted.h0);
  const long of_moves = up(K, 16) * 3;
  auto activations = cast<E>(wanted.gates), hidden = unset<E>(T * B * H), dz = unset<E>(T * B * 4 * H);
  auto cells = unset<float>(T * B * H), moves = unset<float>(T * B * of_moves), kappa = unset<float>(T * B * K);
  auto phi = unset<float>(T * B * U), windows = unset<float>(T * B * A), d_moves = unset<float>(T * B * of_moves);
  std::vector<std::pair<Exact, long>> weights = {{wanted.recurrent, H}};
  if (reads) weights.push_back({wanted.of_window, A});
  const auto panels = forward_panels<E>(weights, 4, H);
  const Window window = wanted.reader.window();
  if (reads)
    with.window_forward(T, B, H, panels.data(), peepholes.data(), h0.data(), c0.data(), activations.data(), hidden.data(),
                        cells.data(), &window, w0.data(), kappa0.data(), moves.data(), kappa.data(), phi.data(), windows.data());
  else
    with.forward(T, B, H, panels.data(), peepholes.data(), h0.data(), c0.data(), activations.data(), hidden.data(), cells.data());
  wanted.forward(reads);
  hold("forward", "hidden", hidden, wanted.hidden), hold("forward", "cells", cells, wanted.cells);
  hold("forward", "activations", activations, wanted.activations);
  if (reads) {
    hold("forward", "windows", windows, wanted.windows), hold("forward", "kappa", kappa, wanted.kappa);
    hold("forward", "phi", phi, wanted.phi), hold("forward", "moves", of_blocks(moves, T * B, K), wanted.moves);
  }

  const double scale = given ? 1 : 0;  // nothing is given as null
  const Exact from_hidden = all_seen<E>(draw(T * B * H, scale)), from_cells = draw(T * B * H, scale);
  const Exact from_windows = draw(T * B * A, scale), from_kappa = draw(T * B * K, scale);
  wanted.d_peepholes = draw(3 * H, 1), wanted.d_bias = draw(4 * H, 1), wanted.dh = draw(B * H, 1), wanted.dc = draw(B * H, 1);
  wanted.dw = draw(B * A, 1), wanted.dk = draw(B * K, 1);
  auto d_peepholes = cast<float>(wanted.d_peepholes), d_bias = cast<float>(wanted.d_bias), dh = cast<float>(wanted.dh);
  auto dc = cast<float>(wanted.dc), dw = cast<float>(wanted.dw), dk = cast<float>(wanted.dk);
  auto weights_back = backward_panels<E>(wanted.recurrent, 4, H, H);
  if (reads) {
    const auto more = backward_panels<E>(wanted.of_window, 4, H, A);
    weights_back.insert(weights_back.end(), more.begin(), more.end());
    weights_back.shrink_to_fit();
  }
  Exact by_sequence(T * B * H);  // (B, T, H), as strides may say
  for (long at = 0; at < T * B * H; ++at) by_sequence[(at / H % B * T + at / H / B) * H + at % H] = from_hidden[at];
  const long strides[2] = {H, T * H};
  const auto incoming = cast<E>(by_sequence);
  const auto of_cells = cast<float>(from_cells), of_windows = cast<float>(from_windows), of_kappa = cast<float>(from_kappa);
  const auto if_given = [&](const auto& array) { return given ? array.data() : nullptr; };
  if (reads)
    with.window_backward(T, B, H, activations.data(), weights_back.data(), peepholes.data(), c0.data(), cells.data(),
                         if_given(incoming), strides, if_given(of_cells), (float)wanted.limit, dz.data(), d_peepholes.data(),
                         d_bias.data(), dh.data(), dc.data(), &window, moves.data(), kappa.data(), if_given(of_windows),
                         if_given(of_kappa), (float)wanted.window_limit, d_moves.data(), dw.data(), dk.data());
  else
    with.backward(T, B, H, activations.data(), weights_back.data(), peepholes.data(), c0.data(), cells.data(),
                  if_given(incoming), strides, if_given(of_cells), (float)wanted.limit, dz.data(), d_peepholes.data(),
                  d_bias.data(), dh.data(), dc.data());
  wanted.backward(reads, from_hidden, from_cells, from_windows, from_kappa);
  hold("backward", "dz", dz, wanted.dz), hold("backward", "d_peepholes", d_peepholes, wanted.d_peepholes);
  hold("backward", "d_bias", d_bias, wanted.d_bias), hold("backward", "dh", dh, wanted.dh), hold("backward", "dc", dc, wanted.dc);
  if (reads) {
    hold("backward", "d_moves", of_blocks(d_moves, T * B, K), wanted.d_moves);
    hold("backward", "dw", dw, wanted.dw), hold("backward", "dk", dk, wanted.dk);
  }
}

// A layer in a step: the weights (4H, width) of states of those widths, and what else it has.
template <class E> struct Weights {
  std::vector<std::pair<Exact, long>> parts;
  Exact scales, of_inputs, peepholes, bias;
  std::vector<E> panels;
  Floats floats[4];

  Weights(long F, long H, const std::vector<long>& widths)
      : scales(4 * H, 1), of_inputs(draw(F * 4 * H, 0.5)), peepholes(draw(3 * H, 0.3)), bias(draw(4 * H, 0.3)) {
    for (long width : widths) parts.push_back({draw(4 * H * width, 1 / std::sqrt(width)), width});
    if (sizeof(E) == 1) quantise(4 * H);
    else
      for (auto& part : parts) part.first = all_seen<E>(part.first);
    panels = forward_panels<E>(parts, 4, H);
    for (int each = 0; each < 4; ++each) floats[each] = cast<float>(*std::array{&scales, &of_inputs, &peepholes, &bias}[each]);
  }
  Layer layer() const {
    return {panels.data(), sizeof(E) == 1 ? floats[0].data() : nullptr, floats[1].data(), floats[2].data(), floats[3].data()};
  }

  void quantise(long rows) {  // each to -127 ... 127 of its row's largest
    for (long n = 0; n < rows; ++n) {
      double largest = 1e-30;
      const auto each = [&](auto use) {
        for (auto& [weight, width] : parts)
          for (long k = 0; k < width; ++k) use(weight[n * width + k]);
      };
      each([&](double x) { largest = std::max(largest, std::fabs(x)); });
      each([&](double& x) { x = std::nearbyint(x / largest * 127); });
      scales[n] = largest / (127 * 127);
    }
  }

  // Of inputs (F,), states and cells (H,), which become those after.
  void step(const double* inputs, long F, const std::vector<const double*>& states, double* cells, double* hidden) const {
    const long H = bias.size() / 4;
    Exact z(4 * H);
    for (long n = 0; n < 4 * H; ++n) {
      for (size_t part = 0; part < parts.size(); ++part) {
        const auto& [weight, width] = parts[part];
        for (long k = 0; k < width; ++k) z[n] += weight[n * width + k] * seen<E>(states[part][k]);
      }
      z[n] = z[n] * scales[n] + bias[n];
      for (long f = 0; f < F; ++f) z[n] += inputs[f] * of_inputs[f * 4 * H + n];
    }
    for (long j = 0; j < H; ++j) {
      const double i = sigmoid(z[j] + peepholes[j] * cells[j]), f = sigmoid(z[H + j] + peepholes[H + j] * cells[j]);
      cells[j] = f * cells[j] + i * std::tanh(z[2 * H + j]);
      hidden[j] = sigmoid(z[3 * H + j] + peepholes[2 * H + j] * cells[j]) * std::tanh(cells[j]);
    }
  }
};

// Hidden states of elements S; `forward` is how far kappa is.
template <class S, class E>
void check_step(const Names& names, Step<S> step, WindowStep window_step, std::array<long, 7> sizes, double forward,
                double most) {
  const auto [L, B, F, H, A, U, K] = sizes;
  const bool reads = window_step;
  const Reader reader(2, B, H, A, U, K);
  std::vector<Weights<E>> weights;
  std::vector<Layer> layers;
  weights.reserve(L);
  for (long layer = 0; layer < L; ++layer) {
    std::vector<long> widths = {H};
    if (reads) widths.push_back(A);
    if (layer) widths.push_back(H);
    weights.emplace_back(F, H, widths);
    layers.push_back(weights.back().layer());
  }
  const Exact inputs = draw(B * F, 1), window = draw(B * A, 0.5);
  Exact hidden = draw(B * L * H, 0.4), cells = draw(B * L * H, 1), kappa = draw(B * K, 0.5);
  for (double& each : hidden) each = from(to<S>(std::tanh(each)));
  for (double& each : kappa) each = (float)(forward + std::fabs(each));
  const auto given = cast<S>(hidden);
  const auto given_inputs = cast<float>(inputs), given_cells = cast<float>(cells);
  const auto given_kappa = cast<float>(kappa), given_window = cast<float>(window);
  auto found = unset<S>(B * L * H);
  auto found_cells = unset<float>(B * L * H), found_kappa = unset<float>(B * K), found_window = unset<float>(B * A);
  const std::unique_ptr<bool[]> finished(new bool[B]());
  const Window read = reader.window();
  if constexpr (std::is_same_v<S, float>) {
    if (reads)
      window_step(B, L, F, H, given_inputs.data(), layers.data(), given.data(), given_cells.data(), found.data(),
                  found_cells.data(), &read, given_kappa.data(), given_window.data(), found_kappa.data(), found_window.data(),
                  finished.get());
  }
  if (!reads)
    step(B, L, F, H, given_inputs.data(), layers.data(), given.data(), given_cells.data(), found.data(), found_cells.data());

  Exact after(B * L * H), moves(B * 3 * K), kappa_after(B * K), phi(B * U), window_after(B * A);
  long mistaken = 0;
  for (long b = 0; b < B; ++b)
    for (long layer = 0; layer < L; ++layer) {
      const long at = (b * L + layer) * H;
      std::vector<const double*> states = {&hidden[at]};
      if (reads) states.push_back(layer ? &window_after[b * A] : &window[b * A]);
      if (layer) states.push_back(&after[at - H]);
      weights[layer].step(&inputs[b * F], F, states, &cells[at], &after[at]);
      if (!reads || layer) continue;
      reader.read(b, &after[at], &kappa[b * K], &moves[b * 3 * K], &kappa_after[b * K], &phi[b * U], &window_after[b * A]);
      const double ahead = reader.ahead(b, &moves[b * 3 * K], &kappa_after[b * K]);
      mistaken += std::fabs(ahead) > 1e-3 && finished[b] != (ahead > 0);
    }
  const std::string function = names.of(reads ? "window_step" : "step");
  const std::string of = " of B=" + std::to_string(B) + " H=" + std::to_string(H);
  judge(function, "hidden" + of, error(found, after), most), judge(function, "cells" + of, error(found_cells, cells), most);
  if (reads) {
    judge(function, "kappa" + of, error(found_kappa, kappa_after), most);
    judge(function, "window" + of, error(found_window, window_after), most);
    judge(function, "finished" + of, mistaken, 0);
  }
}

// The logarithm of a component's weight, not normalised, times its density at x, but for 1 / (2 pi).
double component(const double* x, const double* o, long K, long k) {
  const double s1 = o[3 * K + k], s2 = o[4 * K + k], rho = std::tanh(o[5 * K + k]), rest = 1 - rho * rho;
  const double z1 = (x[0] - o[K + k]) / std::exp(s1), z2 = (x[1] - o[2 * K + k]) / std::exp(s2);
  return o[k] - s1 - s2 - 0.5 * std::log(rest) - (z1 * z1 + z2 * z2 - 2 * rho * z1 * z2) / rest / 2;
}

// Numbers (points, N) from the column `first` on, so many of each point.
Floats columns(const Exact& numbers, long N, long first, long count) {
  Floats found;
  for (size_t row = 0; row < numbers.size(); row += N)
    for (long n = first; n < first + count; ++n) found.push_back((float)numbers[row + n]);
  found.shrink_to_fit();
  return found;
}

void check_mixture(const Names& names, Mixture mixture, long points, long K) {
  const Exact x = draw(points * 2, 1), outputs = draw(points * 6 * K, 0.7), incoming = draw(points, 1);
  const Floats apart[4] = {columns(outputs, 6 * K, 0, K), columns(outputs, 6 * K, K, 2 * K),
                           columns(outputs, 6 * K, 3 * K, 2 * K), columns(outputs, 6 * K, 5 * K, K)};
  const float* parts[4] = {apart[0].data(), apart[1].data(), apart[2].data(), apart[3].data()};
  const long strides[4] = {K, 2 * K, 2 * K, K};
  const auto at = cast<float>(x), of_densities = cast<float>(incoming);
  auto densities = unset<float>(points), derivatives = unset<float>(points * 6 * K);
  mixture(points, K, parts, strides, at.data(), densities.data(), nullptr, nullptr);
  mixture(points, K, parts, strides, at.data(), nullptr, of_densities.data(), derivatives.data());
  Exact wanted(points), slopes(points * 6 * K);
  for (long point = 0; point < points; ++point) {
    Exact o(outputs.begin() + point * 6 * K, outputs.begin() + (point + 1) * 6 * K);
    const auto at_point = [&](long k) { return component(&x[point * 2], o.data(), K, k); };
    double weights = 0, density = 0;
    for (long k = 0; k < K; ++k) weights += std::exp(o[k]), density += std::exp(at_point(k));
    wanted[point] = std::log(density / weights) - std::log(2 * M_PI);
    for (long n = 0; n < 6 * K; ++n) {  // of its component by differences, and of the normalisation
      const double kept = o[n], step = 1e-5, weight = std::exp(o[n % K]), share = std::exp(at_point(n % K));
      o[n] = kept + step;
      const double above = at_point(n % K);
      o[n] = kept - step;
      const double slope = (above - at_point(n % K)) / (2 * step) * share / density - (n < K ? weight / weights : 0);
      slopes[point * 6 * K + n] = incoming[point] * slope;
      o[n] = kept;
    }
  }
  const std::string of = " of K=" + std::to_string(K);
  judge(names.of("mixture"), "densities" + of, error(densities, wanted), 1e-5);
  judge(names.of("mixture"), "derivatives" + of, error(derivatives, slopes), 1e-5);
}

double normal(double uniform) {  // by halves
  double least = -10, most = 10;
  while (most - least > 1e-12) {
    const double middle = (least + most) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2)) < uniform ? least : most) = middle;
  }
  return least;
}

// Points of S binary columns before the real ones, which the outputs have the other way round.
void check_draw(const Names& names, Draw draw_points, long points, long K, long S) {
  const double bias = 0.5;
  const long D = 2 + S, N = 6 * K + S;
  const Exact outputs = draw(points * N, 0.7);
  std::vector<long> places = {S, S + 1};
  for (long binary = 0; binary < S; ++binary) places.push_back(binary);
  std::uniform_real_distribution<float> uniform;
  Floats noise(points * (1 + D));
  for (float& each : noise) each = uniform(generator);
  for (long at = 0; at < 1 + D; ++at) noise[at] = 0, noise[(points - 1) * (1 + D) + at] = 1;
  const auto given = cast<float>(outputs);
  auto drawn = unset<float>(points * D);
  draw_points(points, K, D, given.data(), places.data(), noise.data(), bias, drawn.data());

  Exact wanted(points * D);
  for (long point = 0; point < points; ++point) {
    const double* o = &outputs[point * N];
    const auto chance = [&](long at) { return clamp(noise[point * (1 + D) + at] - 0.5, 0.5 - std::pow(2, -23)) + 0.5; };
    double total = 0, sum = 0;
    for (long k = 0; k < K; ++k) total += std::exp((1 + bias) * o[k]);
    long k = 0;
    while ((sum += std::exp((1 + bias) * o[k])) < chance(0) * total && k + 1 < K) ++k;
    const double n_1 = normal(chance(1)), n_2 = normal(chance(2)), rho = std::tanh(o[5 * K + k]);
    wanted[point * D + S] = o[K + k] + std::exp(o[3 * K + k] - bias) * n_1;
    wanted[point * D + S + 1] = o[2 * K + k] + std::exp(o[4 * K + k] - bias) * (rho * n_1 + std::sqrt(1 - rho * rho) * n_2);
    for (long binary = 0; binary < S; ++binary) wanted[point * D + binary] = chance(3 + binary) < sigmoid(o[6 * K + binary]);
  }
  judge(names.of("draw"), "points of K=" + std::to_string(K), error(drawn, wanted), 1e-5);
}

template <class E> void check_training(const Names& names, const Training<E>& with, double most) {
  generator.seed(0);
  const Sizes<6> all = {{3, 1, 5, 1, 2, 1}, {3, 17, 1, 3, 1, 1}, {4, 3, 16, 17, 16, 17}, {5, 17, 33, 40, 20, 20},
                        {4, 33, 48, 5, 33, 10}, {2, 2, 200, 5, 4, 2}};  // the last is deeper than what products do at a time
  for (bool reads : {false, true}) {
    for (double limit : {0.3, 1e9})
      for (auto [T, B, H, A, U, K] : all) check_layer(names, with, Case<E>(T, B, H, A, U, K, limit), reads, true, most);
    check_layer(names, with, Case<E>(3, 5, 20, 7, 6, 2, 1e9), reads, false, most);
  }
}

template <class S, class E> void check_steps(const Names& names, Step<S> step, WindowStep window_step, double most) {
  generator.seed(0);
  const long deep = sizeof(E) == 1 ? 400 : 100;  // as above
  const Sizes<7> all = {{1, 1, 1, 1, 1, 1, 1}, {2, 1, 3, 40, 7, 5, 1}, {2, 3, 3, 33, 1, 2, 2}, {3, 17, 1, 16, 40, 20, 17},
                        {2, 33, 1, 48, 17, 16, 20}, {2, 2, 3, deep, 17, 16, 20}};
  for (const auto& sizes : all) {
    check_step<S, E>(names, step, nullptr, sizes, 0, most);
    if (!window_step) continue;
    for (double forward : {0.0, 8.0, 1e4}) check_step<float, E>(names, nullptr, window_step, sizes, forward, most);
  }
}

void check_mixtures(const char* level, Mixture mixture, Draw draw_points) {
  generator.seed(0);
  for (long K : {1, 15, 16, 17, 20, 40})
    for (long points : {1, 19}) {
      check_mixture({level, ""}, mixture, points, K);
      check_draw({level, ""}, draw_points, points, K, K % 3);
    }
}

std::string ran, skipped;

bool here(const char* level) {
  const bool runs = can_run(level);
  std::string& levels = runs ? ran : skipped;
  levels += (levels.empty() ? "" : " ") + std::string(level);
  return runs;
}

#define CHECK_FLOAT32(level)                                                                                      \
  check_training<float>({#level, "float32"}, FUNCTIONS(float32, level), 1e-5);                                    \
  check_steps<float, float>({#level, "float32"}, step_float32_##level, window_step_float32_##level, 1e-5);        \
  check_mixtures(#level, mixture_##level, draw_##level);
#define CHECK_BF16(level)                                                                                         \
  check_training<bf16>({#level, "bf16"}, FUNCTIONS(bf16, level), 1e-2);                                           \
  check_steps<bf16, bf16>({#level, "bf16"}, step_bf16_##level, window_step_bf16_##level, 1e-2);
#define CHECK_INT8(level) check_steps<float, int8_t>({#level, "int8"}, step_int8_##level, nullptr, 2e-3);
#define LEVEL(level, ...) \
  if (here(#level)) { __VA_ARGS__ report(); }

// The arguments are the levels that this processor is known to have; without any, it may have whichever it has.
int main(int count, char** arguments) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  LEVEL(generic, CHECK_FLOAT32(generic))
  LEVEL(neon, CHECK_FLOAT32(neon))
  LEVEL(neon_dot, CHECK_INT8(neon_dot))
  LEVEL(avx2, CHECK_FLOAT32(avx2))
  LEVEL(avx_vnni, CHECK_INT8(avx_vnni))
  LEVEL(avx512, CHECK_FLOAT32(avx512))
  LEVEL(avx512_vnni, CHECK_INT8(avx512_vnni))
  LEVEL(avx512_bf16, CHECK_BF16(avx512_bf16))
  LEVEL(amx, CHECK_BF16(amx) CHECK_INT8(amx))
  std::string known;
  for (int each = 1; each < count; ++each) known += (each > 1 ? " " : "") + std::string(arguments[each]);
  if (count > 1 && known != ran) std::printf("FAILED: this processor has %s\n", known.c_str()), failed++;
  std::printf("%d passed, %d failed; levels run: %s; not here: %s\n", passed, failed, ran.c_str(), skipped.c_str());
  return failed > 0;
}
