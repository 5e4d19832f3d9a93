// The logarithm of a mixture of bivariate Gaussians, its derivatives, and draws, each in one pass over the points.
//
// K components of a point, in vectors. Of each: weight logit w, means m, log sigmas s, correlation number r. With
// z = (x - m) exp(-s), n = z_2 cosh r - z_1 sinh r and E = exp(|r|), the logarithm of weight times density is
//   w - s_1 - s_2 + |r| - (z_1^2 + n^2) / 2 + log((1 + E^-2) / 2) - log(sum exp w) - log(2 pi),
// of which `exponent` is the part before the first logarithm and `factor` the argument of that.

#include "simd.h"

namespace {

constexpr float LEAST = -3.4e38f, LOG_2_PI = 1.8378770664f;

inline Vec vanishing(Vec x) { return x < -87.0f ? Vec{} : x == x ? exponential(x) : x; }  // exp(x), 0 below -87

struct Components {
  Vec w, inverse_1, inverse_2, z_1, z_2, r, e, factor, exponent;

  void read(const float* means, const float* log_sigmas, const float* correlations, const float* x, long K, long lanes) {
    const Vec s_1 = load(log_sigmas, lanes), s_2 = load(log_sigmas + K, lanes);
    inverse_1 = vanishing(-s_1), inverse_2 = vanishing(-s_2);
    z_1 = (x[0] - load(means, lanes)) * inverse_1, z_2 = (x[1] - load(means + K, lanes)) * inverse_2;
    r = load(correlations, lanes);
    const Vec size = absolute(r);
    e = vanishing(size > 87.0f ? broadcast(-87.0f) : -size);
    factor = 0.5f + 0.5f * e * e;
    const Vec n = normal();
    exponent = w - s_1 - s_2 + size - 0.5f * (z_1 * z_1 + n * n);
  }
  Vec along() const { return (z_2 - with_sign(z_1, r)) / e; }
  Vec across() const { return (z_2 + with_sign(z_1, r)) * e; }
  Vec normal() const { return 0.5f * (along() + across()); }

  // Of the log density, times what weight (softmax of w) and share (of the component in the density) were multiplied by.
  void derive(Vec weight, Vec share, long K, long lanes, float* to) const {
    const Vec n = share * normal(), E = 1.0f / e;  // n first by the share, which is 0 where the rest may be huge
    const Vec d_1 = share * z_1 - n * with_sign(0.5f * (E - e), r), d_2 = n * (0.5f * (E + e));
    const Vec tanh = with_sign(0.5f * (1.0f - e * e) / factor, r);
    store(to, share - weight, lanes);
    store(to + K, d_1 * inverse_1, lanes);
    store(to + 2 * K, d_2 * inverse_2, lanes);
    store(to + 3 * K, d_1 * z_1 - share, lanes);
    store(to + 4 * K, d_2 * z_2 - share, lanes);
    store(to + 5 * K, share * tanh - n * with_sign(0.5f * (along() - across()), r), lanes);
  }
};

}  // namespace

// `parts` are w, m_1 m_2, s_1 s_2 and r of each point, which begin `strides` numbers after those of the point before.
// Finds the log densities at `x` (points, 2); or, where given `derivatives` (points, 6 K), those of their sum weighted
// by `incoming` (points).
EXPORT void NAME(mixture)(long points, long K, const float* const* parts, const long* strides, const float* x,
                        float* log_densities, const float* incoming, float* derivatives) {
#pragma omp parallel
  {
    const FlushDenormals flush;
    const Room<Components> room((K + W - 1) / W);
    Components* components = room.begin();
#pragma omp for
    for (long point = 0; point < points; ++point) {
      const float* from[4];
      for (int part = 0; part < 4; ++part) from[part] = parts[part] + point * strides[part];
      const auto each = [&](auto work) {
        for (long at = 0; at < K; at += W) work(components[at / W], at, K - at < W ? K - at : W);
      };
      Vec tops = broadcast(LEAST), sums = {}, top_weights = tops, weights = {};
      each([&](Components& some, long at, long lanes) {
        some.w = load(from[0] + at, lanes, -INFINITY), top_weights = larger(some.w, top_weights);
      });
      const float top_weight = largest(top_weights);
      each([&](Components& some, long at, long lanes) {
        some.w -= top_weight;
        some.read(from[1] + at, from[2] + at, from[3] + at, x + 2 * point, K, lanes);
        tops = larger(some.exponent, tops);
      });
      const float top = largest(tops);
      each([&](Components& some, long, long) {
        some.w = vanishing(some.w), some.exponent = some.factor * vanishing(some.exponent - top);
        weights += some.w, sums += some.exponent;
      });
      const float weight = sum(weights), density = sum(sums);
      if (derivatives) {
        const float of_weight = incoming[point] / weight, of_density = incoming[point] / density;
        each([&](const Components& some, long at, long lanes) {
          some.derive(some.w * of_weight, some.exponent * of_density, K, lanes, derivatives + point * 6 * K + at);
        });
      } else {
        log_densities[point] = top + logf(density / weight) - LOG_2_PI;
      }
    }
  }
}

namespace {

double inside(float uniform) {  // keeps normals finite
  const float margin = 1.1920929e-7f;  // of float32
  return uniform < margin ? margin : uniform > 1 - margin ? 1 - margin : uniform;
}

double normal(double uniform) {
  const double y = 2 * uniform - 1;
  const double a = 0.147, l = log1p(-y * y), b = 2 / (M_PI * a) + l / 2;
  double x = copysign(sqrt(sqrt(b * b - l / a) - b), y);  // within 0.002 (Winitzki, 2008)
  for (int newton = 0; newton < 3; ++newton) x -= (erf(x) - y) * exp(x * x) * sqrt(M_PI) / 2;
  return sqrt(2) * x;
}

double largest_of(const float* numbers, long count) {
  float most = numbers[0];
  for (long at = 1; at < count; ++at) most = numbers[at] > most ? numbers[at] : most;
  return most;
}

long choose(const float* logits, long K, double sharpness, double uniform) {
  const double top = largest_of(logits, K);
  double total = 0;
  for (long k = 0; k < K; ++k) total += exp(sharpness * (logits[k] - top));
  double rest = uniform * total;
  for (long k = 0; k + 1 < K; ++k)
    if ((rest -= exp(sharpness * (logits[k] - top))) <= 0) return k;
  return K - 1;
}

}  // namespace

// Points of D = 2 + S columns, of which `places` first names the real ones, by uniform `noise` (points, 1 + D): for the
// component, the real columns and the binary ones. Of each point, `outputs` are w, m_1 m_2, s_1 s_2, r and S binary logits.
EXPORT void NAME(draw)(long points, long K, long D, const float* all_outputs, const long* places, const float* all_noise,
                     double bias, float* all_drawn) {
#pragma omp parallel for if (points >= 16)
  for (long point = 0; point < points; ++point) {
    const float *outputs = all_outputs + point * (6 * K + D - 2), *noise = all_noise + point * (1 + D);
    float* drawn = all_drawn + point * D;
    const long k = choose(outputs, K, 1 + bias, inside(noise[0]));
    const float *means = outputs + K + k, *log_sigmas = outputs + 3 * K + k;
    const double n_1 = normal(inside(noise[1])), n_2 = normal(inside(noise[2])), r = outputs[5 * K + k];
    drawn[places[0]] = means[0] + exp(log_sigmas[0] - bias) * n_1;
    drawn[places[1]] = means[K] + exp(log_sigmas[K] - bias) * (n_2 / cosh(r) + n_1 * tanh(r));
    for (long binary = 0; binary + 2 < D; ++binary)
      drawn[places[2 + binary]] = inside(noise[3 + binary]) * (1 + exp(-double(outputs[6 * K + binary]))) < 1;
  }
}
