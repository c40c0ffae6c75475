// Every kind of call of attend.cpp on small seeded frames, one line of results each: a program, so that an emulator can
// run it. The inputs are the same on every processor.

#include ATTEND

#include <cstdio>

namespace {

constexpr int HEIGHT = 11, WIDTH_OF_FRAME = 21, CELLS = HEIGHT * WIDTH_OF_FRAME, CHANNELS = 5, FRAMES = 3, LABELS = 6;

struct Numbers { // from -1 to 1
    uint32_t state;
    float next() {
        state = state * 1664525u + 1013904223u;
        return float(int32_t(state >> 8)) / 8388608.0f - 1.0f;
    }
    std::vector<float> some(size_t count, float scale) {
        std::vector<float> own(count);
        for (float& x : own) x = scale * next();
        return own;
    }
};

} // namespace

int main() {
    Numbers numbers{7};
    const std::vector<float> query = numbers.some(CHANNELS * CELLS, 2);
    const std::vector<float> keys = numbers.some(FRAMES * CHANNELS * CELLS, 2);
    const std::vector<float> values = numbers.some(FRAMES * LABELS * CELLS, 1);
    const std::vector<float> offsets = numbers.some(FRAMES * 2 * CELLS, 4);
    std::vector<float> inside = offsets; // the same, but no window's centre leaves the frame
    for (int n = 0; n < FRAMES * 2 * CELLS; ++n) {
        const int axis = n / CELLS % 2, place = axis ? n % CELLS / WIDTH_OF_FRAME : n % WIDTH_OF_FRAME;
        const float last = float((axis ? HEIGHT : WIDTH_OF_FRAME) - 1);
        inside[n] = std::min(std::max(place + inside[n], 0.0f), last) - place;
    }
    std::vector<int32_t> labels(FRAMES * CELLS);
    const std::vector<float> scales(FRAMES * CELLS, 1.05f);
    for (int32_t& x : labels) x = int32_t((numbers.next() + 1) * 0.4999f * (LABELS + 1)) - 1;
    const float *key[FRAMES], *value[FRAMES], *at[2][FRAMES], *nowhere[FRAMES] = {};
    for (int r = 0; r < FRAMES; ++r) {
        key[r] = &keys[r * CHANNELS * CELLS], value[r] = &values[r * LABELS * CELLS];
        at[0][r] = &inside[r * 2 * CELLS], at[1][r] = &offsets[r * 2 * CELLS];
    }
    const int32_t windows[FRAMES] = {3, 3, 4}, some[FRAMES] = {-1, 6, 2};
    for (int kind = 0; kind < 2 * 2 * 2 * 6; ++kind) {
        const bool hard = kind & 1, zeros = kind & 2, circle = kind & 4;
        const int method = kind >> 3; // 0, 1: top-k; 2: all; 3, 4: mixtures; 5: displaced
        std::vector<float> out(LABELS * CELLS, 0.0f);
        MmliirJob job{};
        job.query = query.data(), job.keys = key, job.values = value, job.out = out.data();
        if (hard) job.labels = labels.data(), job.scales = scales.data();
        job.radius = method < 3 ? some : windows;
        job.offsets = job.value_offsets = method == 5 ? at[zeros] : nowhere;
        job.channels = CHANNELS, job.height = HEIGHT, job.width = WIDTH_OF_FRAME, job.references = FRAMES;
        job.value_channels = LABELS, job.shape = circle, job.zero_logit = zeros;
        job.topk = method < 2 ? 7 : 0, job.share_ties = method == 1, job.over_all = method == 1;
        job.temperature = method < 2 ? 0.7f : 1.0f;
        job.components = method == 3 ? 2 : method == 4 ? 3 : 0, job.fixed_width = method == 4, job.keep_mass = !hard;
        job.threshold = method == 4 ? 0.05f : -1.0f, job.width_of_bump = 1.0f, job.variance_floor = 0.1f;
        job.stretched = method == 5 && zeros;
        for (int start = 0; start < HEIGHT; start += 8)
            if (mmliir_attend(&job, start, start + 8) != MMLIIR_DONE) return 1;
        for (float x : out) std::printf("%.9g ", x);
        std::printf("\n");
    }
    std::fprintf(stderr, "%d", mmliir_width());
}
