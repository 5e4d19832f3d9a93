// The recurrence of window.py for CPUs: all steps of the layer in one call, both directions; and of whole networks, a step.
//
// Notation as in cells.h; A characters of the alphabet, U places of a text with the one after it, K Gaussians, which stand
// in blocks of 16 with, of each, their importance a, narrowness b and advance k. Cells are shared among the threads as in
// cpu.cpp, and between two barriers sequences are: of its own ones, a thread moves the windows. Left operands are [h | w]
// going forward; the window and its own products are float32.

#include "cells.h"

namespace {

struct Window {
  long A, U, K;
  const int32_t* characters;     // (B, U), A where there is none
  const float* panels;           // of its weights, (H, 3K)
  const float* backward_panels;  // of the same, (3K, H)
  const float* bias;             // (blocks of K, 3, 16)

  long blocks() const { return round_up(K, W) / W; }
  long moves() const { return blocks() * 3 * W; }  // numbers of a, b and k, (blocks of K, 3, 16)
  const int32_t* text(long row) const { return characters + row * U; }
  long length(long row) const {
    long u = 0;
    while (u < U && text(row)[u] != A) ++u;
    return u;
  }
};

inline Vec places(long u) {  // of 16 characters, u of them before; the first one's is 1
  Vec place;
  for (long lane = 0; lane < W; ++lane) place[lane] = u + lane + 1;
  return place;
}

// What a step leaves: a, b and k, kappa (B, K), phi (B, U), and the window (B, A).
struct Reading {
  float *moves, *kappa, *phi, *window;
};

class Reader {
  const Window& window;
  const long H, depth, count, padded;
  const Room<float> rooms[4];
  float *const operand = rooms[0].begin(), *const sums = rooms[1].begin();
  float *const phi = rooms[2].begin(), *const largest = rooms[3].begin();

 public:
  const Share own;  // of the sequences

  Reader(const Window& window, long B, long H)
      : window(window), H(H), depth(round_up(H, W)), count(Share(B).last - Share(B).first), padded(round_up(window.U, W)),
        rooms{Room<float>(count * depth), Room<float>(count * window.moves()), Room<float>(padded), Room<float>(padded)},
        own(B) {}

  // Given hidden states, one sequence every `stride` numbers, and kappa before; calls `use` with each sequence and every
  // 16 numbers of its window.
  template <class Use> void read(const float* hidden, long stride, const float* kappa, const Reading& out, Use use) {
    for (long row = 0; row < count; ++row)
      for (long at = 0; at < H; at += W)
        Float32::put(operand, count, depth, row, at, load(hidden + (own.first + row) * stride + at, smaller(W, H - at)));
    multiply<Float32>(Share(0, 3 * window.blocks()), operand, count, window.panels, depth, sums);
    for (long row = own.first; row < own.last; ++row) {
      move(row, kappa, out);
      float* seen = out.window + row * window.A;
      memset(seen, 0, window.A * sizeof(float));
      for (long u = 0, length = window.length(row); u < length; ++u) seen[window.text(row)[u]] += phi[u];
      for (long at = 0; at < window.A; at += W) use(row, at, load(seen + at, smaller(W, window.A - at)));
    }
  }

  // Whether the place after the text weighs more than each of its characters. By logarithms: far behind a text all
  // weights are next to nothing, and still not alike.
  bool finished(long row, const Reading& out) {
    const auto each = [&](auto use) {  // Gaussian, and 16 places
      for (long k = 0; k < window.K; ++k) {
        const float* move = out.moves + row * window.moves() + k / W * 3 * W + k % W;
        const float a = logf(move[0]), b = move[W], place = out.kappa[row * window.K + k];
        for (long u = 0; u < padded; u += W) {
          const Vec away = place - places(u);
          use(u, a - b * away * away);
        }
      }
    };
    for (long u = 0; u < padded; ++u) largest[u] = -INFINITY, phi[u] = 0;
    each([&](long u, Vec x) { store(largest + u, x > load(largest + u) ? x : load(largest + u)); });
    each([&](long u, Vec x) { store(phi + u, load(phi + u) + exponential(x - load(largest + u))); });
    const long after = window.length(row);
    for (long u = after - 1; u >= 0; --u)
      if (!(phi[after] * expf(largest[after] - largest[u]) > phi[u])) return false;
    return true;
  }

 private:
  void move(long row, const float* kappa, const Reading& out) {
    memset(phi, 0, padded * sizeof(float));
    for (long block = 0; block < window.blocks(); ++block) {
      Vec moves[3];
      for (long part = 0; part < 3; ++part) {
        const long number = 3 * block + part;
        moves[part] = exponential(load(sums + (number * count + row - own.first) * W) + load(window.bias + number * W));
        store(out.moves + row * window.moves() + number * W, moves[part]);
      }
      const long at = row * window.K + block * W, lanes = smaller(W, window.K - block * W);
      const Vec place = load(kappa + at, lanes) + moves[2];
      store(out.kappa + at, place, lanes);
      for (long lane = 0; lane < lanes; ++lane)
        for (long u = 0; u < padded; u += W) {
          const Vec away = place[lane] - places(u);
          store(phi + u, load(phi + u) + moves[0][lane] * exponential(-moves[1][lane] * away * away));
        }
    }
    memcpy(out.phi + row * window.U, phi, window.U * sizeof(float));
  }
};

// Windows w0 (B, A) and places kappa0 (B, K) are those before the first step, `out` those after each.
template <class P>
void forward(const Forward<P>& layer, const typename P::Element* panels, const Window& window, const float* w0,
             const float* kappa0, const Reading& out) {
  using E = typename P::Element;
  const long B = layer.B, H = layer.H, A = window.A, blocks = round_up(H, W) / W, rows = round_up(B, P::ROWS);
  const long beside = depth_of<P>(H), depth = beside + depth_of<P>(A);
  const Room<E> rooms[2] = {Room<E>(rows * depth), Room<E>(rows * depth)};
  E* const operands[2] = {rooms[0].begin(), rooms[1].begin()};
  const Room<float> room_of_hidden(B * blocks * W);
  float* hidden = room_of_hidden.begin();  // of a step, not rounded
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    Reader reader(window, B, H);
    const Room<float> room(4 * rows * W);
    float* sums = room.begin();
    put_states<P>(own, layer.h0, B, H, H, operands[0], depth, 0);
    put_states<P>(Share(round_up(A, W) / W), w0, B, A, A, operands[0], depth, beside);
#pragma omp barrier
    for (long t = 0; t < layer.T; ++t) {
      E* next = operands[(t + 1) % 2];
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W;
        P::template product<4>(operands[t % 2], rows, panels + 4 * at * depth, depth, sums);
        layer.block(t, at, sums, [&](long row, Vec h) {
          P::put(next, rows, depth, row, at, h);
          store(hidden + row * blocks * W + at, h);
        });
      }
#pragma omp barrier
      const long at = t * B;
      const Reading step = {out.moves + at * window.moves(), out.kappa + at * window.K, out.phi + at * window.U,
                            out.window + at * A};
      reader.read(hidden, blocks * W, t ? step.kappa - B * window.K : kappa0, step,
                  [&](long row, long at, Vec w) { P::put(next, rows, depth, row, beside + at, w); });
#pragma omp barrier
    }
    P::stop();
  }
}

// Derivatives of what a layer read, those with respect to the logarithms of a, b and k clipped. As those of cells in
// `Backward`, `dk` (B, K) is of kappa after the last of these steps, and then before the first.
struct Unreading {
  const float *moves, *kappa, *from_window, *from_kappa;
  float limit, *d_moves, *dk;

  // A step of a sequence, `dw` the derivatives of its window; leaves those of the moves in `operand` too.
  void move(const Window& window, long B, long t, long row, const float* dw, float* operand) const {
    const long at = t * B + row, length = window.length(row);
    for (long block = 0; block < window.blocks(); ++block) {
      const long first = block * W, lanes = smaller(W, window.K - first), move = at * window.moves() + 3 * first;
      const Vec a = load(moves + move), b = load(moves + move + W), k = load(moves + move + 2 * W);
      const Vec place = load(kappa + at * window.K + first, lanes);
      Vec sum = {}, slope = {}, curve = {};
      for (long u = 0; u < length; ++u) {
        const Vec away = place - (float)(u + 1), some = dw[window.text(row)[u]] * exponential(-b * away * away);
        sum += some, slope += some * away, curve += some * away * away;
      }
      Vec advance = load(dk + row * window.K + first, lanes) - 2.0f * a * b * slope;
      if (from_kappa) advance += load(from_kappa + at * window.K + first, lanes);
      store(dk + row * window.K + first, advance, lanes);
      const Vec d[3] = {clamp(sum * a, -limit, limit), clamp(-curve * a * b, -limit, limit), clamp(advance * k, -limit, limit)};
      for (long part = 0; part < 3; ++part) {
        store(d_moves + move + part * W, d[part]);
        Float32::put(operand, B, window.moves(), row, 3 * first + part * W, d[part]);
      }
    }
  }
};

// `dh` (B, H) and `dw` (B, A) are the derivatives of the state after the last of these steps, and then before the first.
template <class P>
void backward(const Backward<P>& layer, const typename P::Element* panels, const Window& window, const Unreading& reading,
              float* dh, float* dw) {
  using E = typename P::Element;
  const long B = layer.B, H = layer.H, A = window.A, rows = round_up(B, P::ROWS), moves = window.moves();
  const long blocks = round_up(H, W) / W, characters = round_up(A, W) / W, depth = blocks * 4 * W;
  const Room<E> room(rows * depth);
  const Room<float> rooms[2] = {Room<float>(B * moves), Room<float>(characters * rows * W)};
  E* operand = room.begin();
  float* d_moves = rooms[0].begin();    // left operand of a step
  float* d_windows = rooms[1].begin();  // sums of a step
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks), columns(characters), sequences(B);
    const Room<float> own_rooms[3] = {Room<float>((own.last - own.first) * rows * W), Room<float>(B * W), Room<float>(characters * W)};
    float* sums = own_rooms[0].begin();  // derivatives of the own hidden states
    float* from_moves = own_rooms[1].begin();
    float* d_window = own_rooms[2].begin();
    float* own_windows = d_windows + columns.first * rows * W;
    load_sums<P>(own, dh, B, H, sums);
    load_sums<P>(columns, dw, B, A, own_windows);
#pragma omp barrier
    for (long t = layer.T - 1; t >= 0; --t) {
      for (long row = sequences.first; row < sequences.last; ++row) {
        for (long at = 0; at < A; at += W) {
          Vec d = load(d_windows + at * rows + row * W);
          if (reading.from_window) d += load(reading.from_window + (t * B + row) * A + at, smaller(W, A - at));
          store(d_window + at, d);
        }
        reading.move(window, B, t, row, d_window, d_moves);
      }
#pragma omp barrier
      for (long block = own.first; block < own.last; ++block) {
        const float* some = sums + (block - own.first) * rows * W;
        multiply<Float32>(Share(block, block + 1), d_moves, B, window.backward_panels, moves, from_moves);
        layer.block(t, block * W, [&](long row) { return load(some + row * W) + load(from_moves + row * W); }, operand, depth);
      }
#pragma omp barrier
      multiply<P>(own, operand, B, panels, depth, sums);
      multiply<P>(columns, operand, B, panels + blocks * depth * W, depth, own_windows);
#pragma omp barrier
    }
    store_sums<P>(own, sums, B, H, dh);
    store_sums<P>(columns, own_windows, B, A, dw);
    P::stop();
  }
}

struct Text {  // of a step: kappa and windows before, those after, and whether nothing is left to write, (B,)
  const float *kappa, *window;
  float *kappa_after, *window_after;
  bool* finished;
};

// The first layer sees the input and the window before, every other one the input, the window after, and the layer below.
template <class P> void step(const Step<P, float>& states, const Layer* layers, const Window& window, const Text& text) {
  using E = typename P::Element;
  const long B = states.B, L = states.L, H = states.H, A = window.A;
  const long part = depth_of<P>(H), read = depth_of<P>(A), blocks = round_up(H, W) / W, rows = round_up(B, P::ROWS);
  const auto depth_at = [&](long layer) { return part + read + (layer ? part : 0); };
  static thread_local Kept<E> kept;
  static thread_local Kept<float> kept_reading;
  E* operands = kept.room({B, L, H, A}, rows * (depth_at(0) + (L - 1) * depth_at(1)));
  const auto operand = [&](long layer) { return operands + rows * (layer ? depth_at(0) + (layer - 1) * depth_at(1) : 0); };
  float* moves = kept_reading.room({B, window.moves(), window.U}, B * (window.moves() + window.U));
  const Reading reading = {moves, text.kappa_after, moves + B * window.moves(), text.window_after};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    Reader reader(window, B, H);
    const Room<float> room(4 * rows * W);
    float* sums = room.begin();
    for (long layer = 0; layer < L; ++layer)
      put_states<P>(own, states.hidden + layer * H, B, H, L * H, operand(layer), depth_at(layer), 0);
    put_states<P>(Share(round_up(A, W) / W), text.window, B, A, A, operand(0), depth_at(0), part);
    for (long layer = 0; layer < L; ++layer) {
#pragma omp barrier
      const E* panels = (const E*)layers[layer].panels;
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W;
        P::template product<4>(operand(layer), rows, panels + 4 * at * depth_at(layer), depth_at(layer), sums);
        states.block(layers[layer], layer, at, sums, [&](long row, Vec h) {
          if (layer + 1 < L) P::put(operand(layer + 1), rows, depth_at(1), row, part + read + at, h);
        });
      }
      if (layer > 0) continue;
#pragma omp barrier
      reader.read(states.hidden_after, L * H, text.kappa, reading, [&](long row, long at, Vec w) {
        for (long above = 1; above < L; ++above) P::put(operand(above), rows, depth_at(1), row, part + at, w);
      });
      for (long row = reader.own.first; row < reader.own.last; ++row) text.finished[row] = reader.finished(row, reading);
    }
    P::stop();
  }
}

}  // namespace

#define FUNCTIONS(P, E, TYPE)                                                                                             \
  EXPORT void NAME(window_forward_##TYPE)(                                                                                \
      long T, long B, long H, const E* panels, const float* peepholes, const E* h0, const float* c0, E* activations,      \
      E* hidden, float* cells, const Window* window, const float* w0, const float* kappa0, float* moves, float* kappa,    \
      float* phi, float* windows) {                                                                                       \
    forward<P>({T, B, H, peepholes, h0, c0, activations, hidden, cells}, panels, *window, w0, kappa0,                     \
               {moves, kappa, phi, windows});                                                                             \
  }                                                                                                                       \
  EXPORT void NAME(window_backward_##TYPE)(                                                                               \
      long T, long B, long H, const E* activations, const E* panels, const float* peepholes, const float* c0,             \
      const float* cells, const E* from_hidden, const long* strides, const float* from_cells, float limit, E* dz,         \
      float* d_peepholes, float* d_bias, float* dh, float* dc, const Window* window, const float* moves,                  \
      const float* kappa, const float* from_windows, const float* from_kappa, float window_limit, float* d_moves,         \
      float* dw, float* dk) {                                                                                             \
    backward<P>({T, B, H, activations, peepholes, c0, cells, from_hidden, strides, from_cells, limit, dz, d_peepholes,    \
                 d_bias, dc}, panels, *window, {moves, kappa, from_windows, from_kappa, window_limit, d_moves, dk},       \
                dh, dw);                                                                                                  \
  }                                                                                                                       \
  EXPORT void NAME(window_step_##TYPE)(                                                                                   \
      long B, long L, long F, long H, const float* inputs, const Layer* layers, const float* hidden, const float* cells,  \
      float* hidden_after, float* cells_after, const Window* window, const float* kappa, const float* windows,            \
      float* kappa_after, float* windows_after, bool* finished) {                                                         \
    step<P>({B, L, F, H, inputs, hidden, cells, hidden_after, cells_after}, layers, *window,                              \
            {kappa, windows, kappa_after, windows_after, finished});                                                      \
  }

#ifdef WITH_FLOAT32
FUNCTIONS(Float32, float, float32)
#endif
#ifdef WITH_BF16
FUNCTIONS(Bf16, bf16, bf16)
#endif
