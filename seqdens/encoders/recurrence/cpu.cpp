// The recurrence of reference.py for CPUs: all steps of a layer in one call, both directions.
//
// T steps, B sequences, F numbers of an input, H cells. Gates stand in the order i, f, g, o. Cells stand in blocks of
// 16, one vector; a thread owns some blocks with their columns of the weights, which stay in its cache from step to step.
// There is one barrier a step: what all threads have written is the left operand of the next product, hidden states
// going forward, derivatives of the pre-activations going back.

#include "products.h"

namespace {

template <class P> constexpr long depth_of(long H) { return round_up(H, std::max(P::DEPTH, W)); }

struct Cells {  // 16 of a sequence, after a step
  Vec i, f, g, o, c, h;
  // z are the pre-activations without peepholes p.
  Cells(const Vec z[4], const Vec p[3], Vec before) {
    i = sigmoid(z[0] + p[0] * before), f = sigmoid(z[1] + p[1] * before), g = tanh(z[2]);
    c = f * before + i * g, o = sigmoid(z[3] + p[2] * c), h = o * tanh(c);
  }
};

// `activations` holds the projected inputs with the bias, and then i, f, g, o.
template <class P, class E = typename P::Element>
void forward(long T, long B, long H, const E* panels, const float* peepholes, E* activations, E* hidden, float* cells) {
  const long depth = depth_of<P>(H), blocks = round_up(H, W) / W, rows = round_up(B, P::ROWS);
  std::unique_ptr<char[]> owners[2];
  E* operands[2] = {aligned<E>(owners[0], rows * depth), aligned<E>(owners[1], rows * depth)};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, 4 * rows * W);
    for (long block = own.first; block < own.last; ++block)
      for (long row = 0; row < B; ++row)
        P::put(operands[0], rows, depth, row, block * W, load(hidden + row * H + block * W, std::min(W, H - block * W)));
#pragma omp barrier
    for (long t = 0; t < T; ++t) {
      E* next = operands[(t + 1) % 2];
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W;
        P::template product<4>(operands[t % 2], rows, panels + block * 4 * depth * W, depth, sums);
        with_lanes(H - at, [&](auto lanes) {
          Vec p[3];
          for (int gate = 0; gate < 3; ++gate) p[gate] = load(peepholes + gate * H + at, lanes);
          for (long row = 0; row < B; ++row) {
            E* gates = activations + (t * B + row) * 4 * H + at;
            const long state = (t * B + row) * H + at, after = state + B * H;
            Vec z[4];
            for (int gate = 0; gate < 4; ++gate)
              z[gate] = load(sums + (gate * rows + row) * W) + load(gates + gate * H, lanes);
            const Cells some(z, p, load(cells + state, lanes));
            store(gates, some.i, lanes), store(gates + H, some.f, lanes);
            store(gates + 2 * H, some.g, lanes), store(gates + 3 * H, some.o, lanes);
            store(cells + after, some.c, lanes), store(hidden + after, some.h, lanes);
            P::put(next, rows, depth, row, at, some.h);
          }
        });
      }
#pragma omp barrier
    }
    P::stop();
  }
}

// `from_hidden` has a step every `strides[0]` elements and a sequence every `strides[1]`. `dh` and `dc` (B, H) are the
// derivatives of the state after the last of these steps, and become those of the state before the first.
template <class P, class E = typename P::Element>
void backward(long T, long B, long H, const E* activations, const E* panels, const float* peepholes, const float* cells,
              const E* from_hidden, const long* strides, const float* from_cells, float limit, E* dz, float* d_peepholes,
              float* d_bias, float* dh, float* dc) {
  const long blocks = round_up(H, W) / W, depth = blocks * 4 * W, rows = round_up(B, P::ROWS);
  std::unique_ptr<char[]> owners[2];
  E* operands[2] = {aligned<E>(owners[0], rows * depth), aligned<E>(owners[1], rows * depth)};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, (own.last - own.first) * rows * W);  // derivatives of the own hidden states
    for (long block = own.first; block < own.last; ++block)
      for (long row = 0; row < B; ++row)
        store(sums + ((block - own.first) * rows + row) * W, load(dh + row * H + block * W, std::min(W, H - block * W)));
    for (long t = T - 1; t >= 0; --t) {
      E* operand = operands[t % 2];
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W;
        with_lanes(H - at, [&](auto lanes) {
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
        });
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

struct Layer {
  const void* panels;         // of the hidden state's weights, and below those the weights of the layer below, if any
  const float* scales;        // (4H,) of the sums of products; null where they are 1
  const float* input_weight;  // (F, 4H)
  const float *peepholes, *bias;
};

// One step of L layers, the input F of all and the hidden state of the one below; states are (B, L, H).
template <class P, class S>
void step(long B, long L, long F, long H, const float* inputs, const Layer* layers, const S* hidden, const float* cells,
          S* hidden_after, float* cells_after) {
  using E = typename P::Element;
  const long depth = depth_of<P>(H), blocks = round_up(H, W) / W, rows = round_up(B, P::ROWS), states = L * H;
  static thread_local Kept<E> kept;
  E* operands = kept.room({B, L, H}, (2 * L - 1) * rows * depth);
  const auto operand = [&](long layer) { return operands + (layer ? 2 * layer - 1 : 0) * rows * depth; };
  const auto depth_at = [&](long layer) { return layer ? 2 * depth : depth; };
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, 4 * rows * W);
    for (long layer = 0; layer < L; ++layer)
      for (long at = own.first * W; at < std::min(H, own.last * W); at += W)
        for (long row = 0; row < B; ++row)
          P::put(operand(layer), rows, depth_at(layer), row, at, load(hidden + row * states + layer * H + at, std::min(W, H - at)));
    for (long layer = 0; layer < L; ++layer) {
#pragma omp barrier
      const Layer& of = layers[layer];
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W;
        P::template product<4>(operand(layer), rows, (const E*)of.panels + block * 4 * depth_at(layer) * W, depth_at(layer), sums);
        with_lanes(H - at, [&](auto lanes) {
          Vec p[3], bias[4], scales[4];
          for (int gate = 0; gate < 3; ++gate) p[gate] = load(of.peepholes + gate * H + at, lanes);
          for (int gate = 0; gate < 4; ++gate) {
            bias[gate] = load(of.bias + gate * H + at, lanes);
            scales[gate] = of.scales ? load(of.scales + gate * H + at, lanes) : broadcast(1.0f);
          }
          for (long row = 0; row < B; ++row) {
            const long state = row * states + layer * H + at;
            Vec z[4];
            for (int gate = 0; gate < 4; ++gate) {
              z[gate] = P::value(load(sums + (gate * rows + row) * W)) * scales[gate] + bias[gate];
              for (long f = 0; f < F; ++f) z[gate] += inputs[row * F + f] * load(of.input_weight + (f * 4 + gate) * H + at, lanes);
            }
            const Cells some(z, p, load(cells + state, lanes));
            store(cells_after + state, some.c, lanes), store(hidden_after + state, some.h, lanes);
            if (layer + 1 < L) P::put(operand(layer + 1), rows, 2 * depth, row, depth + at, some.h);
          }
        });
      }
    }
    P::stop();
  }
}

}  // namespace

extern "C" {

// Whether the processor and the system multiply bfloat16 and int8 in tiles; to be asked before it is done.
int has_tiles() {
#ifdef TILES
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // asks Linux for the tiles' registers
#else
  return 0;
#endif
}

#define TRAINING(P, E, NAME)                                                                                              \
  void forward_##NAME(long T, long B, long H, const E* panels, const float* peepholes, E* activations, E* hidden,          \
                      float* cells) {                                                                                      \
    forward<P>(T, B, H, panels, peepholes, activations, hidden, cells);                                                    \
  }                                                                                                                        \
  void backward_##NAME(long T, long B, long H, const E* activations, const E* panels, const float* peepholes,              \
                       const float* cells, const E* from_hidden, const long* strides, const float* from_cells,             \
                       float limit, E* dz, float* d_peepholes, float* d_bias, float* dh, float* dc) {                      \
    backward<P>(T, B, H, activations, panels, peepholes, cells, from_hidden, strides, from_cells, limit, dz, d_peepholes,  \
                d_bias, dh, dc);                                                                                           \
  }
#define SAMPLING(P, S, NAME)                                                                                              \
  void step_##NAME(long B, long L, long F, long H, const float* inputs, const Layer* layers, const S* hidden,              \
                   const float* cells, S* hidden_after, float* cells_after) {                                              \
    step<P>(B, L, F, H, inputs, layers, hidden, cells, hidden_after, cells_after);                                         \
  }

TRAINING(Float32, float, float32)
SAMPLING(Float32, float, float32)
#ifdef TILES
TRAINING(Tiles<bf16>, bf16, bf16)
SAMPLING(Tiles<bf16>, bf16, bf16)
SAMPLING(Tiles<int8_t>, float, int8)
#endif
}
