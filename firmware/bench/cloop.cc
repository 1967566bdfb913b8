// A plain decoder loop for one Mixtral checkpoint, batch 1: the baseline that a processor core has to offer.
//
// int8 weights with one scale a row, activations quantised to int8 vector by vector, float32 keys and values. One file,
// no library; products with AVX2, the rest left to the compiler (-O3 -march=native -ffast-math).
//
//   cloop MODEL THREADS RUNS ID...    reads the text ID..., a token at a time, RUNS times
//
// Prints for each run a line of ids, the likeliest next token behind every one, and a line of nanoseconds that each
// took. MODEL is written by firmware/bench/cpu.py.

#include <immintrin.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr int kBlock = 32;  // bytes of one AVX2 register: rows are padded to it

struct Shape {
  int32_t vocab, d, layers, heads, kv_heads, head_dim, experts, top_k, ffn, context;
  float theta, eps;
};

struct Matrix {
  int rows = 0, stride = 0;
  std::vector<int8_t> w;
  std::vector<float> scale;
};

struct Layer {
  Matrix qkv, o, router;
  std::vector<Matrix> gate_up, down;
  std::vector<float> keys, values;  // [kv head][position][head_dim]
};

int threads = 1;

void read(void* to, size_t size, FILE* file) {
  if (fread(to, 1, size, file) != size) {
    fprintf(stderr, "the model file is too short\n");
    exit(2);
  }
}

Matrix read_matrix(FILE* file) {
  int32_t size[2];
  read(size, sizeof size, file);
  Matrix m;
  m.rows = size[0];
  m.stride = size[1];
  m.w.resize(size_t(m.rows) * m.stride);
  m.scale.resize(m.rows);
  read(m.w.data(), m.w.size(), file);
  read(m.scale.data(), m.scale.size() * sizeof(float), file);
  return m;
}

// A vector in int8: its padding is zero.
struct Quantised {
  std::vector<int8_t> q;
  float scale = 0;

  void set(const float* x, int n) {
    q.assign((n + kBlock - 1) / kBlock * kBlock, 0);
    float top = 1e-30f;
    for (int i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
    scale = top / 127;
    const float inverse = 127 / top;
    for (int i = 0; i < n; i++) q[i] = int8_t(int(x[i] * inverse + (x[i] < 0 ? -0.5f : 0.5f)));
  }
};

// Four rows of M x. |x| is unsigned and w gets the sign of x, as maddubs wants it; the rows share the loads of x.
inline void multiply_rows(float* y, const Matrix& m, const Quantised& x, int row) {
  const __m256i ones = _mm256_set1_epi16(1);
  const int8_t* w = m.w.data() + size_t(row) * m.stride;
  const int8_t* q = x.q.data();
  __m256i acc[4] = {};
  for (int i = 0; i < m.stride; i += kBlock) {
    const __m256i a = _mm256_loadu_si256((const __m256i*)(q + i));
    const __m256i size = _mm256_abs_epi8(a);
    for (int k = 0; k < 4; k++) {
      const __m256i b = _mm256_loadu_si256((const __m256i*)(w + size_t(k) * m.stride + i));
      const __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(b, a));
      acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(pairs, ones));
    }
  }
  const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(acc[0], acc[1]), _mm256_hadd_epi32(acc[2], acc[3]));
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  const __m128 scale = _mm_mul_ps(_mm_loadu_ps(&m.scale[row]), _mm_set1_ps(x.scale));
  _mm_storeu_ps(y + row, _mm_mul_ps(_mm_cvtepi32_ps(four), scale));
}

void multiply(float* y, const Matrix& m, const Quantised& x) {
  if (threads == 1) {
    for (int row = 0; row < m.rows; row += 4) multiply_rows(y, m, x, row);
    return;
  }
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int row = 0; row < m.rows; row += 4) multiply_rows(y, m, x, row);
}

class Decoder {
 public:
  explicit Decoder(FILE* file) {
    read(&s, sizeof s, file);
    embedding.resize(size_t(s.vocab) * s.d);
    read(embedding.data(), embedding.size() * sizeof(float), file);
    for (int i = 0; i < s.layers; i++) {
      Layer layer;
      layer.qkv = read_matrix(file);
      layer.o = read_matrix(file);
      layer.router = read_matrix(file);
      for (int e = 0; e < s.experts; e++) {
        layer.gate_up.push_back(read_matrix(file));
        layer.down.push_back(read_matrix(file));
      }
      layer.keys.resize(size_t(s.kv_heads) * s.context * s.head_dim);
      layer.values.resize(layer.keys.size());
      layers.push_back(std::move(layer));
    }
    head = read_matrix(file);
    cosine.resize(size_t(s.context) * s.head_dim / 2);
    sine.resize(cosine.size());
    for (int p = 0; p < s.context; p++)
      for (int i = 0; i < s.head_dim / 2; i++) {
        const double angle = p * std::pow(double(s.theta), -2.0 * i / s.head_dim);
        cosine[p * s.head_dim / 2 + i] = float(std::cos(angle));
        sine[p * s.head_dim / 2 + i] = float(std::sin(angle));
      }
    x.resize(s.d);
    normed.resize(s.d);
    qkv.resize((s.heads + 2 * s.kv_heads) * s.head_dim + 4);
    mixed.resize(s.heads * s.head_dim);
    added.resize(s.d + 4);
    chances.resize(s.experts + 4);
    hidden.resize(2 * s.ffn + 4);
    scores.resize(s.context);
    logits.resize(s.vocab + 4);
  }

  int step(int token, int position) {
    memcpy(x.data(), embedding.data() + size_t(token) * s.d, s.d * sizeof(float));
    for (Layer& layer : layers) {
      norm();
      multiply(qkv.data(), layer.qkv, act);
      attend(layer, position);
      act.set(mixed.data(), s.heads * s.head_dim);
      multiply(added.data(), layer.o, act);
      for (int i = 0; i < s.d; i++) x[i] += added[i];
      norm();
      feed(layer);
    }
    norm();
    multiply(logits.data(), head, act);
    int best = 0;
    for (int i = 1; i < s.vocab; i++)
      if (logits[i] > logits[best]) best = i;
    return best;
  }

  Shape s;

 private:
  // x / rms(x), quantised. Gains are folded into the weights behind them.
  void norm() {
    float squares = 0;
    for (int i = 0; i < s.d; i++) squares += x[i] * x[i];
    const float r = 1 / sqrtf(squares / s.d + s.eps);
    for (int i = 0; i < s.d; i++) normed[i] = x[i] * r;
    act.set(normed.data(), s.d);
  }

  void rotate(float* v, int position) {
    const int half = s.head_dim / 2;
    const float *c = &cosine[position * half], *n = &sine[position * half];
    for (int i = 0; i < half; i++) {
      const float a = v[i], b = v[half + i];
      v[i] = a * c[i] - b * n[i];
      v[half + i] = b * c[i] + a * n[i];
    }
  }

  void attend(Layer& layer, int position) {
    const int hd = s.head_dim, group = s.heads / s.kv_heads;
    float* k = qkv.data() + s.heads * hd;
    for (int g = 0; g < s.kv_heads; g++) {
      rotate(k + g * hd, position);
      const size_t at = (size_t(g) * s.context + position) * hd;
      memcpy(&layer.keys[at], k + g * hd, hd * sizeof(float));
      memcpy(&layer.values[at], k + (s.kv_heads + g) * hd, hd * sizeof(float));
    }
    const float root = 1 / sqrtf(float(hd));
    for (int h = 0; h < s.heads; h++) {
      float* q = qkv.data() + h * hd;
      rotate(q, position);
      const float* keys = &layer.keys[size_t(h / group) * s.context * hd];
      const float* values = &layer.values[size_t(h / group) * s.context * hd];
      float top = -1e30f, total = 0;
      for (int p = 0; p <= position; p++) {
        float dot = 0;
        for (int i = 0; i < hd; i++) dot += q[i] * keys[p * hd + i];
        scores[p] = dot * root;
        top = fmaxf(top, scores[p]);
      }
      for (int p = 0; p <= position; p++) total += scores[p] = expf(scores[p] - top);
      float* out = &mixed[h * hd];
      memset(out, 0, hd * sizeof(float));
      for (int p = 0; p <= position; p++)
        for (int i = 0; i < hd; i++) out[i] += scores[p] * values[p * hd + i];
      for (int i = 0; i < hd; i++) out[i] /= total;
    }
  }

  void feed(Layer& layer) {
    multiply(chances.data(), layer.router, act);
    int chosen[8];
    float total = 0, weight[8];
    for (int j = 0; j < s.top_k; j++) {
      int best = -1;
      for (int e = 0; e < s.experts; e++) {
        bool taken = false;
        for (int i = 0; i < j; i++) taken |= chosen[i] == e;
        if (!taken && (best < 0 || chances[e] > chances[best])) best = e;
      }
      chosen[j] = best;
      total += weight[j] = expf(chances[best] - chances[chosen[0]]);
    }
    for (int j = 0; j < s.top_k; j++) {
      multiply(hidden.data(), layer.gate_up[chosen[j]], act);
      for (int i = 0; i < s.ffn; i++) hidden[i] = hidden[i] / (1 + expf(-hidden[i])) * hidden[s.ffn + i];
      inner.set(hidden.data(), s.ffn);
      multiply(added.data(), layer.down[chosen[j]], inner);
      for (int i = 0; i < s.d; i++) x[i] += added[i] * weight[j] / total;
    }
  }

  std::vector<Layer> layers;
  Matrix head;
  Quantised act, inner;
  std::vector<float> embedding, cosine, sine, x, normed, qkv, mixed, added, chances, hidden, scores, logits;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    fprintf(stderr, "usage: cloop MODEL THREADS RUNS ID...\n");
    return 2;
  }
  FILE* file = fopen(argv[1], "rb");
  if (!file) {
    perror(argv[1]);
    return 2;
  }
  Decoder decoder(file);
  fclose(file);
  threads = atoi(argv[2]);
  const int runs = atoi(argv[3]);
  for (int run = 0; run < runs; run++) {
    std::vector<int> ids;
    std::vector<long> times;
    for (int position = 0; position < argc - 4; position++) {
      const int token = atoi(argv[4 + position]);
      const auto begin = std::chrono::steady_clock::now();
      ids.push_back(decoder.step(token, position));
      const auto end = std::chrono::steady_clock::now();
      times.push_back(std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count());
    }
    for (int id : ids) printf("%d ", id);
    printf("\n");
    for (long t : times) printf("%ld ", t);
    printf("\n");
  }
}
