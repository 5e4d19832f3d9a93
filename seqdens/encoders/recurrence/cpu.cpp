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
  std::unique_ptr<char[]> owners[2];
  E* operands[2] = {aligned<E>(owners[0], rows * depth), aligned<E>(owners[1], rows * depth)};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, 4 * rows * W);
    put_states<P>(own, layer.hidden, B, H, H, operands[0], depth, 0);
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
  std::unique_ptr<char[]> owners[2];
  E* operands[2] = {aligned<E>(owners[0], rows * depth), aligned<E>(owners[1], rows * depth)};
#pragma omp parallel
  {
    const FlushDenormals flush;
    P::start();
    const Share own(blocks);
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, (own.last - own.first) * rows * W);  // derivatives of the own hidden states
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
    std::unique_ptr<char[]> owner;
    float* sums = aligned<float>(owner, 4 * rows * W);
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
    forward<P>({T, B, H, peepholes, activations, hidden, cells}, panels);                                                  \
  }                                                                                                                        \
  void backward_##NAME(long T, long B, long H, const E* activations, const E* panels, const float* peepholes,              \
                       const float* cells, const E* from_hidden, const long* strides, const float* from_cells,             \
                       float limit, E* dz, float* d_peepholes, float* d_bias, float* dh, float* dc) {                      \
    backward<P>({T, B, H, activations, peepholes, cells, from_hidden, strides, from_cells, limit, dz, d_peepholes,         \
                 d_bias, dc}, panels, dh);                                                                                 \
  }
#define SAMPLING(P, S, NAME)                                                                                              \
  void step_##NAME(long B, long L, long F, long H, const float* inputs, const Layer* layers, const S* hidden,              \
                   const float* cells, S* hidden_after, float* cells_after) {                                              \
    step<P, S>({B, L, F, H, inputs, hidden, cells, hidden_after, cells_after}, layers);                                    \
  }

TRAINING(Float32, float, float32)
SAMPLING(Float32, float, float32)
#ifdef TILES
TRAINING(Tiles<bf16>, bf16, bf16)
SAMPLING(Tiles<bf16>, bf16, bf16)
SAMPLING(Tiles<int8_t>, float, int8)
#endif
}
