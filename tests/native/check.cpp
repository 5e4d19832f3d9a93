// Every level of the compiled library that runs here, held to plain code in double precision.
//
// T steps, B sequences, H cells, F inputs, L layers, A characters, U places of a text, K Gaussians. Gates stand in the order
// i, f, g, o, peepholes in the order i, f, o. What is compared is the norm of a difference, as a share of the norm of what is
// right. Arrays have exact sizes, so that a sanitizer sees what is read or written beyond them.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
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
typedef void (*Mixture)(long, long, const float* const*, const long*, const float*, float*, const float*, float*);
typedef void (*Draw)(long, long, long, const float*, const long*, const float*, double, float*);

#define WEAK(type, name) extern "C" std::remove_pointer_t<type> name __attribute__((weak));
#define TRAINING(E, type, level)                                                      \
  WEAK(decltype(Training<E>::forward), forward_##type##_##level)                      \
  WEAK(decltype(Training<E>::backward), backward_##type##_##level)                    \
  WEAK(decltype(Training<E>::window_forward), window_forward_##type##_##level)        \
  WEAK(decltype(Training<E>::window_backward), window_backward_##type##_##level)
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

int passed = 0, failed = 0;
std::mt19937 generator(0);

void judge(const std::string& what, double error, double most) {
  const bool good = error <= most;
  (good ? passed : failed)++;
  if (!good) std::printf("FAILED %s: %.2g, wanted at most %.2g\n", what.c_str(), error, most);
}

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
template <class E> double error(const std::vector<E>& found, const Exact& wanted) {
  double difference = 0, norm = 0;
  for (size_t at = 0; at < wanted.size(); ++at)
    difference += std::pow(from(found[at]) - wanted[at], 2), norm += wanted[at] * wanted[at];
  const double share = std::sqrt(difference / (norm > 0 ? norm : 1));
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
  return panels;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double clamp(double x, double limit) { return std::fmin(std::fmax(x, -limit), limit); }

// A layer, with or without a window, as the equations say.
struct Case {
  long T, B, H, A, U, K;
  double limit;
  Exact gates, recurrent, peepholes, h0, c0, of_window, M, m, w0, kappa0;
  std::vector<int32_t> text;

  Case(long T, long B, long H, long A, long U, long K, double limit)
      : T(T), B(B), H(H), A(A), U(U), K(K), limit(limit), gates(draw(T * B * 4 * H, 1)),
        recurrent(draw(4 * H * H, 1 / std::sqrt(H))), peepholes(draw(3 * H, 0.3)), h0(draw(B * H, 0.5)), c0(draw(B * H, 1)),
        of_window(draw(4 * H * A, 1 / std::sqrt(A))), M(draw(3 * K * H, 1 / std::sqrt(H))), m(draw(3 * K, 0.3)),
        w0(draw(B * A, 0.5)), kappa0(draw(B * K, 0.5)), text(B * U, (int32_t)A) {
    for (double& each : kappa0) each = std::fabs(each);
    for (long k = 0; k < K; ++k) m[k] -= std::log(K), m[2 * K + k] += std::log(2.0 * U / (3 * T));
    for (long b = 0; b < B; ++b)
      for (long u = 0; u < (b * 7 + 3) % U; ++u) text[b * U + u] = (int32_t)(generator() % A);
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
          for (long k = 0; k < H; ++k) act[n] += recurrent[n * H + k] * h[k];
          for (long a = 0; reads && a < A; ++a) act[n] += of_window[n * A + a] * w[a];
        }
        for (long j = 0; j < H; ++j) {
          act[j] = sigmoid(act[j] + peepholes[j] * c[j]), act[H + j] = sigmoid(act[H + j] + peepholes[H + j] * c[j]);
          act[2 * H + j] = std::tanh(act[2 * H + j]);
          const double cell = act[H + j] * c[j] + act[j] * act[2 * H + j];
          act[3 * H + j] = sigmoid(act[3 * H + j] + peepholes[2 * H + j] * cell);
          cells[(t * B + b) * H + j] = cell, hidden[(t * B + b) * H + j] = act[3 * H + j] * std::tanh(cell);
        }
        if (reads) read(t, b);
      }
  }

  void read(long t, long b) {
    const long at = t * B + b;
    for (long n = 0; n < 3 * K; ++n) {
      double sum = m[n];
      for (long j = 0; j < H; ++j) sum += M[n * H + j] * hidden[at * H + j];
      moves[at * 3 * K + n] = std::exp(sum);
    }
    for (long k = 0; k < K; ++k) {
      const double* move = &moves[at * 3 * K];
      kappa[at * K + k] = (t ? kappa[(at - B) * K + k] : kappa0[b * K + k]) + move[2 * K + k];
      for (long u = 0; u < U; ++u)
        phi[at * U + u] += move[k] * std::exp(-move[K + k] * std::pow(kappa[at * K + k] - u - 1, 2));
    }
    for (long u = 0; u < U && text[b * U + u] < A; ++u) windows[at * A + text[b * U + u]] += phi[at * U + u];
  }

  Exact dz, d_peepholes, d_bias, dh, dc, dw, dk, d_moves;

  void backward(bool reads, const Exact& from_hidden, const Exact& from_cells, const Exact& from_windows) {
    dz.assign(T * B * 4 * H, 0), d_peepholes.assign(3 * H, 0), d_bias.assign(4 * H, 0), dh.assign(B * H, 0), dc = dh;
    dw.assign(B * A, 0), dk.assign(B * K, 0), d_moves.assign(T * B * 3 * K, 0);
    for (long t = T - 1; t >= 0; --t)
      for (long b = 0; b < B; ++b) {
        const long at = t * B + b;
        for (long a = 0; reads && a < A; ++a) dw[b * A + a] += from_windows[at * A + a];
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
          for (long n = 0; n < 4 * H; ++n) dh[b * H + k] += dz[at * 4 * H + n] * recurrent[n * H + k];
        }
        for (long a = 0; a < A; ++a) {
          dw[b * A + a] = 0;
          for (long n = 0; reads && n < 4 * H; ++n) dw[b * A + a] += dz[at * 4 * H + n] * of_window[n * A + a];
        }
      }
  }

  void unread(long at, long b) {
    for (long k = 0; k < K; ++k) {
      const double *move = &moves[at * 3 * K], a = move[k], narrow = move[K + k], place = kappa[at * K + k];
      double sum = 0, slope = 0, curve = 0;
      for (long u = 0; u < U && text[b * U + u] < A; ++u) {
        const double away = place - u - 1, some = dw[b * A + text[b * U + u]] * std::exp(-narrow * away * away);
        sum += some, slope += some * away, curve += some * away * away;
      }
      dk[b * K + k] -= 2 * a * narrow * slope;
      double* d = &d_moves[at * 3 * K];
      d[k] = clamp(sum * a, limit), d[K + k] = clamp(-curve * a * narrow, limit), d[2 * K + k] = clamp(dk[b * K + k] * move[2 * K + k], limit);
    }
    for (long j = 0; j < H; ++j)
      for (long n = 0; n < 3 * K; ++n) dh[b * H + j] += d_moves[at * 3 * K + n] * M[n * H + j];
  }
};

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

template <class E> void check_layer(const std::string& name, const Training<E>& with, Case wanted, bool reads, double most) {
  const auto [T, B, H, A, U, K] = std::tuple(wanted.T, wanted.B, wanted.H, wanted.A, wanted.U, wanted.K);
  wanted.forward(reads);
  const auto peepholes = cast<float>(wanted.peepholes), c0 = cast<float>(wanted.c0);
  const auto w0 = cast<float>(wanted.w0), kappa0 = cast<float>(wanted.kappa0);
  const auto h0 = cast<E>(wanted.h0);
  auto activations = cast<E>(wanted.gates);
  std::vector<E> hidden(T * B * H), dz(T * B * 4 * H);
  const long blocks = up(K, 16) / 16;
  Floats cells(T * B * H), moves(T * B * blocks * 48), kappa(T * B * K), phi(T * B * U), windows(T * B * A);
  std::vector<std::pair<Exact, long>> weights = {{wanted.recurrent, H}};
  if (reads) weights.push_back({wanted.of_window, A});
  const auto panels = forward_panels<E>(weights, 4, H);
  const auto of_moves = forward_panels<float>({{wanted.M, H}}, 3, K), back = backward_panels<float>(wanted.M, 3, K, H);
  const auto bias = cast<float>(in_blocks(wanted.m, K));
  const Window window = {A, U, K, wanted.text.data(), of_moves.data(), back.data(), bias.data()};
  if (reads)
    with.window_forward(T, B, H, panels.data(), peepholes.data(), h0.data(), c0.data(), activations.data(), hidden.data(),
                        cells.data(), &window, w0.data(), kappa0.data(), moves.data(), kappa.data(), phi.data(), windows.data());
  else
    with.forward(T, B, H, panels.data(), peepholes.data(), h0.data(), c0.data(), activations.data(), hidden.data(), cells.data());
  judge(name + " hidden", error(hidden, wanted.hidden), most), judge(name + " cells", error(cells, wanted.cells), most);
  judge(name + " activations", error(activations, wanted.activations), most);
  if (reads) judge(name + " windows", error(windows, wanted.windows), most), judge(name + " kappa", error(kappa, wanted.kappa), most);

  const Exact from_hidden = draw(T * B * H, 1), from_cells = draw(T * B * H, 1), from_windows = draw(T * B * A, 1);
  wanted.backward(reads, from_hidden, from_cells, from_windows);
  auto weights_back = backward_panels<E>(wanted.recurrent, 4, H, H);
  if (reads) {
    const auto more = backward_panels<E>(wanted.of_window, 4, H, A);
    weights_back.insert(weights_back.end(), more.begin(), more.end());
  }
  Floats d_peepholes(3 * H), d_bias(4 * H), dh(B * H), dc(B * H), d_moves(T * B * blocks * 48), dw(B * A), dk(B * K);
  const auto incoming = cast<E>(from_hidden);
  const auto of_cells = cast<float>(from_cells), of_windows = cast<float>(from_windows);
  const long strides[2] = {B * H, H};
  const float limit = (float)wanted.limit;
  if (reads)
    with.window_backward(T, B, H, activations.data(), weights_back.data(), peepholes.data(), c0.data(), cells.data(),
                         incoming.data(), strides, of_cells.data(), limit, dz.data(), d_peepholes.data(), d_bias.data(),
                         dh.data(), dc.data(), &window, moves.data(), kappa.data(), of_windows.data(), nullptr, limit,
                         d_moves.data(), dw.data(), dk.data());
  else
    with.backward(T, B, H, activations.data(), weights_back.data(), peepholes.data(), c0.data(), cells.data(), incoming.data(),
                  strides, of_cells.data(), limit, dz.data(), d_peepholes.data(), d_bias.data(), dh.data(), dc.data());
  judge(name + " dz", error(dz, wanted.dz), 2 * most), judge(name + " d_peepholes", error(d_peepholes, wanted.d_peepholes), 3 * most);
  judge(name + " d_bias", error(d_bias, wanted.d_bias), 3 * most);
  judge(name + " dh", error(dh, wanted.dh), 3 * most), judge(name + " dc", error(dc, wanted.dc), 3 * most);
  if (reads) {
    judge(name + " d_moves", error(of_blocks(d_moves, T * B, K), wanted.d_moves), 3 * most);
    judge(name + " dw", error(dw, wanted.dw), 3 * most), judge(name + " dk", error(dk, wanted.dk), 3 * most);
  }
}

// Two layers, the second of which sees the first; in int8 whole numbers stand for weights and hidden states.
template <class S, class E> void check_step(const std::string& name, Step<S> step, long B, long F, long H, double most) {
  const bool whole = sizeof(E) == 1;
  const auto seen = [&](double h) { return whole ? std::nearbyint((float)h * 127.0f) : h; };
  const Exact inputs = draw(B * F, 1);
  Exact hidden = draw(B * 2 * H, 0.4), cells = draw(B * 2 * H, 1), hidden_after(B * 2 * H), cells_after(B * 2 * H);
  for (double& each : hidden) each = (float)std::tanh(each);
  std::vector<std::vector<E>> panels(2);
  std::vector<Floats> kept;
  std::vector<Layer> layers;
  kept.reserve(8);
  for (long layer = 0; layer < 2; ++layer) {
    Exact U = draw(4 * H * H, 1 / std::sqrt(H)), below = draw(4 * H * H, 1 / std::sqrt(H)), scales(4 * H, 1);
    const Exact W = draw(F * 4 * H, 0.5), p = draw(3 * H, 0.3), bias = draw(4 * H, 0.3);
    for (long n = 0; whole && n < 4 * H; ++n) {
      double most_of_row = 1e-30;
      for (long k = 0; k < H; ++k) most_of_row = std::fmax(most_of_row, std::fmax(std::fabs(U[n * H + k]), std::fabs(below[n * H + k])));
      for (long k = 0; k < H; ++k)
        U[n * H + k] = std::nearbyint(U[n * H + k] / most_of_row * 127), below[n * H + k] = std::nearbyint(below[n * H + k] / most_of_row * 127);
      scales[n] = most_of_row / (127 * 127);
    }
    std::vector<std::pair<Exact, long>> weights = {{U, H}};
    if (layer) weights.push_back({below, H});
    panels[layer] = forward_panels<E>(weights, 4, H);
    for (const Exact& each : {scales, W, p, bias}) kept.push_back(cast<float>(each));
    const Floats* own = &kept[4 * layer];
    layers.push_back({panels[layer].data(), whole ? own[0].data() : nullptr, own[1].data(), own[2].data(), own[3].data()});
    for (long b = 0; b < B; ++b) {
      Exact z(4 * H);
      for (long n = 0; n < 4 * H; ++n) {
        for (long k = 0; k < H; ++k) z[n] += U[n * H + k] * seen(hidden[(b * 2 + layer) * H + k]);
        for (long k = 0; layer && k < H; ++k) z[n] += below[n * H + k] * seen(hidden_after[b * 2 * H + k]);
        z[n] = z[n] * scales[n] + bias[n];
        for (long f = 0; f < F; ++f) z[n] += inputs[b * F + f] * W[f * 4 * H + n];
      }
      for (long j = 0; j < H; ++j) {
        const long at = (b * 2 + layer) * H + j;
        const double i = sigmoid(z[j] + p[j] * cells[at]), f = sigmoid(z[H + j] + p[H + j] * cells[at]);
        cells_after[at] = f * cells[at] + i * std::tanh(z[2 * H + j]);
        hidden_after[at] = sigmoid(z[3 * H + j] + p[2 * H + j] * cells_after[at]) * std::tanh(cells_after[at]);
      }
    }
  }
  std::vector<S> found(B * 2 * H);
  Floats found_cells(B * 2 * H);
  const auto given = cast<S>(hidden);
  const auto given_inputs = cast<float>(inputs), given_cells = cast<float>(cells);
  step(B, 2, F, H, given_inputs.data(), layers.data(), given.data(), given_cells.data(), found.data(), found_cells.data());
  judge(name + " step hidden", error(found, hidden_after), most), judge(name + " step cells", error(found_cells, cells_after), most);
}

double log_density(const double* x, const double* o, long K) {
  double top = -INFINITY, weights = 0, sum = 0;
  for (long k = 0; k < K; ++k) top = std::fmax(top, o[k]);
  for (long k = 0; k < K; ++k) weights += std::exp(o[k] - top);
  for (long k = 0; k < K; ++k) {
    const double s1 = o[3 * K + k], s2 = o[4 * K + k], rho = std::tanh(o[5 * K + k]);
    const double z1 = (x[0] - o[K + k]) / std::exp(s1), z2 = (x[1] - o[2 * K + k]) / std::exp(s2), rest = 1 - rho * rho;
    const double square = (z1 * z1 + z2 * z2 - 2 * rho * z1 * z2) / rest;
    sum += std::exp(o[k] - top - s1 - s2 - 0.5 * std::log(rest) - square / 2) / weights;
  }
  return std::log(sum) - std::log(2 * M_PI);
}

void check_mixture(const std::string& name, Mixture mixture, Draw draw_points, long points, long K) {
  const Exact x = draw(points * 2, 1), outputs = draw(points * 6 * K, 0.7), incoming = draw(points, 1);
  const auto given = cast<float>(outputs), at = cast<float>(x), of_densities = cast<float>(incoming);
  const float* parts[4] = {&given[0], &given[K], &given[3 * K], &given[5 * K]};
  const long strides[4] = {6 * K, 6 * K, 6 * K, 6 * K};
  Floats densities(points), derivatives(points * 6 * K);
  mixture(points, K, parts, strides, at.data(), densities.data(), nullptr, nullptr);
  mixture(points, K, parts, strides, at.data(), nullptr, of_densities.data(), derivatives.data());
  Exact wanted(points), slopes(points * 6 * K);
  for (long point = 0; point < points; ++point) {
    Exact o(outputs.begin() + point * 6 * K, outputs.begin() + (point + 1) * 6 * K);
    wanted[point] = log_density(&x[point * 2], o.data(), K);
    for (long n = 0; n < 6 * K; ++n) {
      const double kept = o[n], step = 1e-5;
      o[n] = kept + step;
      const double above = log_density(&x[point * 2], o.data(), K);
      o[n] = kept - step;
      slopes[point * 6 * K + n] = incoming[point] * (above - log_density(&x[point * 2], o.data(), K)) / (2 * step);
      o[n] = kept;
    }
  }
  judge(name + " mixture", error(densities, wanted), 1e-5), judge(name + " mixture's derivatives", error(derivatives, slopes), 1e-5);

  std::uniform_real_distribution<float> uniform;
  const long places[2] = {0, 1};
  Floats noise(points * 3), drawn(points * 2);
  for (float& each : noise) each = uniform(generator);
  draw_points(points, K, 2, given.data(), places, noise.data(), 0.5, drawn.data());
  double off = 0;  // each point is a component's mean and what its sigmas and noise say: checked by its distance in sigmas
  for (long point = 0; point < points; ++point) {
    double least = INFINITY;
    for (long k = 0; k < K; ++k) {
      const float* o = &given[point * 6 * K];
      const double z1 = (drawn[point * 2] - o[K + k]) / std::exp(o[3 * K + k] - 0.5);
      least = std::fmin(least, std::fabs(0.5 * std::erfc(-z1 / std::sqrt(2)) - noise[point * 3 + 1]));
    }
    off = std::fmax(off, least);
  }
  judge(name + " draw", off, 1e-4);
}

template <class E> void check_training(const char* level, const char* type, const Training<E>& with, double most) {
  const std::string name = std::string(type) + " " + level;
  const long one = sizeof(E) == 4 ? 1 : 9;  // a single number's rounding to bf16 can be the whole error
  for (double limit : {0.3, 1e9})
    for (auto [T, B, H] : Sizes<3>{{1, 1, one}, {3, 2, 16}, {5, 17, 33}, {4, 33, 48}})
      check_layer(name + " H=" + std::to_string(H), with, Case(T, B, H, 5, 4, 2, limit), false, most);
  for (double limit : {0.3, 1e9})
    for (auto [T, B, H, A, U, K] : Sizes<6>{{1, 1, one, one, 2, 1}, {4, 3, 16, 17, 16, 17}, {5, 18, 33, 40, 20, 10}})
      check_layer(name + " reading H=" + std::to_string(H), with, Case(T, B, H, A, U, K, limit), true, most);
}

template <class S, class E> void check_steps(const char* level, const char* type, Step<S> step, double most) {
  for (auto [B, F, H] : Sizes<3>{{1, 1, 1}, {1, 3, 40}, {3, 3, 33}, {17, 1, 16}, {33, 3, 100}})
    check_step<S, E>(std::string(type) + " " + level + " B=" + std::to_string(B), step, B, F, H, most);
}

bool here(const char* level) {
  const bool runs = can_run(level);
  std::printf("%s level %s\n", runs ? "checking" : "skipping", level);
  return runs;
}

#define CHECK_FLOAT32(level)                                                                \
  if (here(#level)) {                                                                       \
    check_training<float>(#level, "float32", FUNCTIONS(float32, level), 1e-5);              \
    check_steps<float, float>(#level, "float32", step_float32_##level, 1e-5);               \
    for (long K : {1, 15, 16, 17, 20, 40}) check_mixture(#level, mixture_##level, draw_##level, 9, K); \
  }
#define CHECK_BF16(level)                                                      \
  if (here(#level)) {                                                          \
    check_training<bf16>(#level, "bf16", FUNCTIONS(bf16, level), 2e-2);        \
    check_steps<bf16, bf16>(#level, "bf16", step_bf16_##level, 2e-2);          \
  }
#define CHECK_INT8(level) \
  if (can_run(#level)) check_steps<float, int8_t>(#level, "int8", step_int8_##level, 2e-3);

int main() {
  CHECK_FLOAT32(generic) CHECK_FLOAT32(neon) CHECK_FLOAT32(avx2) CHECK_FLOAT32(avx512)
  CHECK_BF16(avx512_bf16) CHECK_BF16(amx)
  here("neon_dot"), here("avx_vnni"), here("avx512_vnni");
  CHECK_INT8(neon_dot) CHECK_INT8(avx_vnni) CHECK_INT8(avx512_vnni) CHECK_INT8(amx)
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed > 0;
}
