// A program around attend.cpp, for machines that are only emulated: it compares a few cases with a plain loop, prints
// the largest error and ends with 0 where it is small.

#include "attend.cpp"

#include <cstdio>

namespace {

struct Case {
    int radius, shape, zero_logit, topk;
};

uint32_t state = 1;
float draw() {
    state = state * 1664525u + 1013904223u;
    return float(state >> 8) / float(1 << 23) - 1.0f; // -1 .. 1
}

constexpr int C = 5, H = 9, W = 11, R = 2, K = 3;

bool in_window(const Case& own, int dx, int dy) {
    if (std::abs(dx) > own.radius || std::abs(dy) > own.radius) return false;
    int apart = dx * dx + dy * dy;
    return own.shape == 0 || (own.shape == 1 ? apart < own.radius * own.radius || !apart : apart <= own.radius * own.radius);
}

double error_of(const Case& own, const std::vector<float>& query, const std::vector<std::vector<float>>& keys,
                const std::vector<std::vector<float>>& values) {
    std::vector<float> out(K * H * W, 0.0f);
    const float* key_maps[R] = {keys[0].data(), keys[1].data()};
    const float* value_maps[R] = {values[0].data(), values[1].data()};
    const float* offsets[R] = {nullptr, nullptr};
    int32_t radius[R] = {own.radius, own.radius};
    MmliirJob job{};
    job.query = query.data(), job.keys = key_maps, job.values = value_maps, job.radius = radius, job.out = out.data();
    job.offsets = offsets, job.value_offsets = offsets;
    job.channels = C, job.height = H, job.width = W, job.references = R, job.value_channels = K;
    job.shape = own.shape, job.zero_logit = own.zero_logit, job.topk = own.topk, job.temperature = 1.0f;
    job.threshold = -1.0f;
    if (mmliir_attend(&job, 0, H) != MMLIIR_DONE) return INF;
    double worst = 0;
    for (int y = 0; y < H; ++y) {
        for (int x = 0; x < W; ++x) {
            std::vector<std::pair<double, const float*>> found; // logit, the value of channel 0
            static const float nothing[K * H * W] = {};
            for (int r = 0; r < R; ++r) {
                for (int dy = -own.radius; dy <= own.radius; ++dy) {
                    for (int dx = -own.radius; dx <= own.radius; ++dx) {
                        if (!in_window(own, dx, dy)) continue;
                        int v = y + dy, u = x + dx;
                        if (v < 0 || v >= H || u < 0 || u >= W) {
                            if (own.zero_logit) found.push_back({0.0, nothing});
                            continue;
                        }
                        double logit = 0;
                        for (int c = 0; c < C; ++c)
                            logit += double(query[(c * H + y) * W + x]) * keys[r][(c * H + v) * W + u];
                        found.push_back({logit, values[r].data() + v * W + u});
                    }
                }
            }
            std::sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.first > b.first; });
            if (own.topk && found.size() > size_t(own.topk)) found.resize(own.topk);
            double total = 0, sums[K] = {};
            for (auto& one : found) {
                double weight = std::exp(one.first - found[0].first);
                total += weight;
                for (int k = 0; k < K; ++k) sums[k] += weight * one.second[k * H * W];
            }
            for (int k = 0; k < K; ++k)
                worst = std::max(worst, std::abs(sums[k] / total - out[(k * H + y) * W + x]));
        }
    }
    return worst;
}

} // namespace

int main() {
    std::vector<float> query(C * H * W);
    std::vector<std::vector<float>> keys(R, query), values(R, std::vector<float>(K * H * W));
    for (auto& one : query) one = 2 * draw();
    for (auto* maps : {&keys, &values})
        for (auto& map : *maps)
            for (auto& one : map) one = 2 * draw();
    double worst = 0;
    for (int radius : {0, 1, 3, 6})
        for (int shape : {0, 1, 2})
            for (int zero_logit : {0, 1})
                for (int topk : {0, 4}) {
                    if (zero_logit && topk) continue; // cells outside the frame tie with each other
                    worst = std::max(worst, error_of({radius, shape, zero_logit, topk}, query, keys, values));
                }
    std::printf("largest error %.2g\n", worst);
    return worst < 2e-5 ? 0 : 1;
}
