// The recurrence of reference.py for CPUs: all steps of a layer in one call, both directions.
//
// Notation as in cells.h. Cells stand in blocks of 16, one vector; a thread owns some blocks with their columns of the
// weights, which stay in its cache from step to step. There is one barrier a step: what all threads have written is the
// left operand of the next product, hidden states going forward, derivatives of the pre-activations going back.

#include "cells.h"

namespace {

template <class P> void forward(const Forward<P>& layer, const typename P::Element* panels) {
  using E = typename P::Element;
  const long B = layer.B, H = layer.H, depth = depth_of<P>(H), blocks = round_up(H, W) / W, rows = round_up(B, P::ROWS);
  const Room<E> rooms[2] = {Room<E>(rows * depth), Room<E>(rows * depth)};
  E* const operands[2] = {rooms[0].begin(), rooms[1].begin()};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    const Room<float> room(4 * rows * W);
    float* sums = room.begin();
    put_states<P>(own, layer.h0, B, H, H, operands[0], depth, 0);
#pragma omp barrier
    for (long t = 0; t < layer.T; ++t) {
      E* next = operands[(t + 1) % 2];
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W;
        P::template product<4>(operands[t % 2], rows, panels + 4 * at * depth, depth, sums);
        layer.block(t, at, sums, [&](long row, Vec h) { P::put(next, rows, depth, row, at, h); });
      }
#pragma omp barrier
    }
    P::stop();
  }
}

// `dh` (B, H) are the derivatives of the hidden states after the last of these steps, and become those before the first.
template <class P> void backward(const Backward<P>& layer, const typename P::Element* panels, float* dh) {
  using E = typename P::Element;
  const long B = layer.B, H = layer.H, blocks = round_up(H, W) / W, depth = blocks * 4 * W, rows = round_up(B, P::ROWS);
  const Room<E> rooms[2] = {Room<E>(rows * depth), Room<E>(rows * depth)};
  E* const operands[2] = {rooms[0].begin(), rooms[1].begin()};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    const Room<float> room((own.last - own.first) * rows * W);
    float* sums = room.begin();  // derivatives of the own hidden states
    load_sums<P>(own, dh, B, H, sums);
    for (long t = layer.T - 1; t >= 0; --t) {
      E* operand = operands[t % 2];
      for (long block = own.first; block < own.last; ++block) {
        const float* some = sums + (block - own.first) * rows * W;
        layer.block(t, block * W, [&](long row) { return load(some + row * W); }, operand, depth);
      }
#pragma omp barrier
      multiply<P>(own, operand, B, panels, depth, sums);
    }
    store_sums<P>(own, sums, B, H, dh);
    P::stop();
  }
}

// Each layer sees the input and the hidden state of the one below.
template <class P, class S> void step(const Step<P, S>& states, const Layer* layers) {
  using E = typename P::Element;
  const long B = states.B, L = states.L, H = states.H;
  const long depth = depth_of<P>(H), blocks = round_up(H, W) / W, rows = round_up(B, P::ROWS);
  static thread_local Kept<E> kept;
  E* operands = kept.room({B, L, H}, (2 * L - 1) * rows * depth);
  const auto operand = [&](long layer) { return operands + (layer ? 2 * layer - 1 : 0) * rows * depth; };
  const auto depth_at = [&](long layer) { return layer ? 2 * depth : depth; };
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    const Room<float> room(4 * rows * W);
    float* sums = room.begin();
    for (long layer = 0; layer < L; ++layer)
      put_states<P>(own, states.hidden + layer * H, B, H, L * H, operand(layer), depth_at(layer), 0);
    for (long layer = 0; layer < L; ++layer) {
#pragma omp barrier
      const E* panels = (const E*)layers[layer].panels;
      for (long block = own.first; block < own.last; ++block) {
        const long at = block * W;
        P::template product<4>(operand(layer), rows, panels + 4 * at * depth_at(layer), depth_at(layer), sums);
        states.block(layers[layer], layer, at, sums, [&](long row, Vec h) {
          if (layer + 1 < L) P::put(operand(layer + 1), rows, 2 * depth, row, depth + at, h);
        });
      }
    }
    P::stop();
  }
}

}  // namespace

#define TRAINING(P, E, TYPE)                                                                                              \
  EXPORT void NAME(forward_##TYPE)(long T, long B, long H, const E* panels, const float* peepholes, const E* h0,          \
                                   const float* c0, E* activations, E* hidden, float* cells) {                            \
    forward<P>({T, B, H, peepholes, h0, c0, activations, hidden, cells}, panels);                                         \
  }                                                                                                                       \
  EXPORT void NAME(backward_##TYPE)(long T, long B, long H, const E* activations, const E* panels,                        \
                                    const float* peepholes, const float* c0, const float* cells, const E* from_hidden,    \
                                    const long* strides, const float* from_cells, float limit, E* dz,                     \
                                    float* d_peepholes, float* d_bias, float* dh, float* dc) {                            \
    backward<P>({T, B, H, activations, peepholes, c0, cells, from_hidden, strides, from_cells, limit, dz, d_peepholes,    \
                 d_bias, dc}, panels, dh);                                                                                \
  }
#define SAMPLING(P, S, TYPE)                                                                                              \
  EXPORT void NAME(step_##TYPE)(long B, long L, long F, long H, const float* inputs, const Layer* layers,                 \
                                const S* hidden, const float* cells, S* hidden_after, float* cells_after) {               \
    step<P, S>({B, L, F, H, inputs, hidden, cells, hidden_after, cells_after}, layers);                                   \
  }

#ifdef WITH_FLOAT32
TRAINING(Float32, float, float32)
SAMPLING(Float32, float, float32)
#endif
#ifdef WITH_BF16
TRAINING(Bf16, bf16, bf16)
SAMPLING(Bf16, bf16, bf16)
#endif
#ifdef WITH_INT8
SAMPLING(Int8, float, int8)
#endif
