// Blocks of 16 LSTM cells at a step, between the products: gates, peepholes and clipping, of all sequences.
//
// T steps, B sequences, F numbers of an input, H cells. Gates stand in the order i, f, g, o. States are (T, B, H) after
// each step, and those before the first (B, H). `sums` are the products of the block's four gates, (4, rows) vectors.

#pragma once

#include "products.h"

namespace {

template <class P> constexpr long depth_of(long N) { return round_up(N, larger(P::DEPTH, W)); }

struct Cells {  // 16 of a sequence, after a step
  Vec i, f, g, o, c, h;
  // z are the pre-activations without peepholes p.
  Cells(const Vec z[4], const Vec p[3], Vec before) {
    i = sigmoid(z[0] + p[0] * before), f = sigmoid(z[1] + p[1] * before), g = tanh(z[2]);
    c = f * before + i * g, o = sigmoid(z[3] + p[2] * c), h = o * tanh(c);
  }
};

// `activations` (T, B, 4H) hold the projected inputs with the bias, and then i, f, g, o.
template <class P> struct Forward {
  using E = typename P::Element;
  long T, B, H;
  const float* peepholes;
  const E* h0;
  const float* c0;
  E *activations, *hidden;
  float* cells;

  // The block that begins `at` a cell; calls `use` with each sequence and its hidden states.
  template <class Use> void block(long t, long at, const float* sums, Use use) const {
    const long rows = round_up(B, P::ROWS);
    with_lanes(H - at, [&](auto lanes) {
      Vec p[3];
      for (int gate = 0; gate < 3; ++gate) p[gate] = load(peepholes + gate * H + at, lanes);
      for (long row = 0; row < B; ++row) {
        E* gates = activations + (t * B + row) * 4 * H + at;
        const long after = (t * B + row) * H + at;
        const float* before = t ? cells + after - B * H : c0 + row * H + at;
        Vec z[4];
        for (int gate = 0; gate < 4; ++gate)
          z[gate] = load(sums + (gate * rows + row) * W) + load(gates + gate * H, lanes);
        const Cells some(z, p, load(before, lanes));
        store(gates, some.i, lanes), store(gates + H, some.f, lanes);
        store(gates + 2 * H, some.g, lanes), store(gates + 3 * H, some.o, lanes);
        store(cells + after, some.c, lanes), store(hidden + after, some.h, lanes);
        use(row, some.h);
      }
    });
  }
};

// `from_hidden` has a step every `strides[0]` elements and a sequence every `strides[1]`. `dc` (B, H) are the derivatives
// of the cells after the last of these steps, and become those of the cells before the first.
template <class P> struct Backward {
  using E = typename P::Element;
  long T, B, H;
  const E* activations;
  const float *peepholes, *c0, *cells;
  const E* from_hidden;
  const long* strides;
  const float* from_cells;
  float limit;
  E* dz;
  float *d_peepholes, *d_bias, *dc;

  // The block that begins `at` a cell; `dh` gives the derivatives of a sequence's hidden states, but for `from_hidden`.
  template <class Hidden> void block(long t, long at, Hidden dh, E* operand, long depth) const {
    const long rows = round_up(B, P::ROWS);
    with_lanes(H - at, [&](auto lanes) {
      Vec p[3], d_p[3] = {}, d_b[4] = {};
      for (int gate = 0; gate < 3; ++gate) p[gate] = load(peepholes + gate * H + at, lanes);
      for (long row = 0; row < B; ++row) {
        const long state = (t * B + row) * H + at, first_gate = (t * B + row) * 4 * H + at;
        Vec gates[4];
        for (int gate = 0; gate < 4; ++gate) gates[gate] = load(activations + first_gate + gate * H, lanes);
        const Vec i = gates[0], f = gates[1], g = gates[2], o = gates[3];
        const Vec before = load(t ? cells + state - B * H : c0 + row * H + at, lanes);
        const Vec cell = load(cells + state, lanes), tanh_c = tanh(cell);
        Vec h = dh(row), c = load(dc + row * H + at, lanes);
        if (from_hidden) h += load(from_hidden + t * strides[0] + row * strides[1] + at, lanes);
        if (from_cells) c += load(from_cells + state, lanes);
        Vec d[4];
        d[3] = clamp(h * tanh_c * o * (1.0f - o), -limit, limit);
        c += h * o * (1.0f - tanh_c * tanh_c) + d[3] * p[2];
        d[0] = clamp(c * g * i * (1.0f - i), -limit, limit);
        d[1] = clamp(c * before * f * (1.0f - f), -limit, limit);
        d[2] = clamp(c * i * (1.0f - g * g), -limit, limit);
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
};

struct Layer {
  const void* panels;         // of the hidden state's weights, and below those the weights of what else it multiplies
  const float* scales;        // (4H,) of the sums of products; null where they are 1
  const float* input_weight;  // (F, 4H)
  const float *peepholes, *bias;
};

// One step of L layers without gradients; states are (B, L, H), of which S are the hidden ones.
template <class P, class S> struct Step {
  long B, L, F, H;
  const float* inputs;
  const S* hidden;
  const float* cells;
  S* hidden_after;
  float* cells_after;

  // As `Forward::block`.
  template <class Use> void block(const Layer& of, long layer, long at, const float* sums, Use use) const {
    const long rows = round_up(B, P::ROWS);
    with_lanes(H - at, [&](auto lanes) {
      Vec p[3], bias[4], scales[4];
      for (int gate = 0; gate < 3; ++gate) p[gate] = load(of.peepholes + gate * H + at, lanes);
      for (int gate = 0; gate < 4; ++gate) {
        bias[gate] = load(of.bias + gate * H + at, lanes);
        scales[gate] = of.scales ? load(of.scales + gate * H + at, lanes) : broadcast(1.0f);
      }
      for (long row = 0; row < B; ++row) {
        const long state = (row * L + layer) * H + at;
        Vec z[4];
        for (int gate = 0; gate < 4; ++gate) {
          z[gate] = P::value(load(sums + (gate * rows + row) * W)) * scales[gate] + bias[gate];
          for (long f = 0; f < F; ++f) z[gate] += inputs[row * F + f] * load(of.input_weight + (f * 4 + gate) * H + at, lanes);
        }
        const Cells some(z, p, load(cells + state, lanes));
        store(cells_after + state, some.c, lanes), store(hidden_after + state, some.h, lanes);
        use(row, some.h);
      }
    });
  }
};

}  // namespace
