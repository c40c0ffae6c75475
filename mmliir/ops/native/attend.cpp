// Compiled core of mmliir.ops.window_topk_attend: float32, CPU, plain C interface, no library but the standard one.
//
// Queries are taken in tiles of 4 x 4 cells, one cell a vector lane. The keys that a tile can reach are compared with
// all 16 queries at once: a key's channel is a scalar that multiplies a vector of queries, so keys need no unfolding,
// only a copy of the rows that a band of queries reaches, with the channels of a few neighbouring cells beside each
// other ([row][panel][channel][x]): what is read together lies together. A patch of logits ([key][16]) stays in the
// cache and is consumed at once: it updates the k best keys of each query, or a running soft-max with its read-out, or
// it is replaced by a mixture and read out.
//
// A window may lie around a displaced centre between the cells. Sampling commutes with the dot product, so the box of
// cells that the displaced windows of a tile reach is compared like any other patch, then every lane mixes neighbouring
// logits by the fractions of its own centre, in place: what was the logit of a cell is then that of a place of the
// window. The read-out is the transpose: weights are spread from places to cells, in place, then read as those of a
// patch. Where the windows of a tile lie so far apart that most of the box belongs to none of them, lanes are compared
// in groups with a box each, and each lane's own window is copied to one place of a patch that holds nothing else.
//
// Every number is computed in an order that depends on the query, the keys and the settings alone, never on the
// band that a thread takes, so results are the same to the last bit for every number of threads.

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace {

constexpr int SIDE = 4;               // cells of a tile on each axis
constexpr int LANES = SIDE * SIDE;    // queries of a tile
constexpr int MAX_COMPONENTS = 8;     // of a mixture
constexpr int SPARE = 32;             // places for keys that tie with the k-th, beyond k
constexpr int WHOLE_FRAME_KEYS = 512; // logits of one patch of a reference without a window
// Displaced windows stay where they lie in the box of a tile while one fills at least this share of it.
constexpr float ALIGNED_SHARE = 0.5f;

// ------------------------------------------------------------------------------------------------- vectors of lanes

// Lanes of a vector register of the machine that this is compiled for, and keys that a tile is compared with at a
// time: as many as have their sums in registers, beside the queries and a key. Keys lie in panels of PANEL cells.
#if defined(__AVX512F__)
constexpr int WIDTH = 16;
constexpr int BLOCK = 24;
constexpr int PANEL = 0; // whole rows
#elif defined(__AVX2__)
constexpr int WIDTH = 8;
constexpr int BLOCK = 6;
constexpr int PANEL = 16;
#elif defined(__ARM_NEON)
constexpr int WIDTH = 4;
constexpr int BLOCK = 6;
constexpr int PANEL = 16;
#else
constexpr int WIDTH = 4;
constexpr int BLOCK = 2;
constexpr int PANEL = 16;
#endif

typedef float nf __attribute__((vector_size(4 * WIDTH)));
typedef int32_t ni __attribute__((vector_size(4 * WIDTH)));

inline nf as_floats(ni a) { return (nf)a; }
inline ni as_bits(nf a) { return (ni)a; }
inline nf vmax(nf a, nf b) { return a > b ? a : b; }
inline nf vmin(nf a, nf b) { return a < b ? a : b; }

inline nf blend(ni mask, nf yes, nf no) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    return (nf)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
#elif defined(__SSE4_1__) && !defined(__AVX512F__)
    return (nf)_mm_blendv_ps((__m128)no, (__m128)yes, (__m128)mask);
#else
    return (nf)(((ni)yes & mask) | ((ni)no & ~mask));
#endif
}

inline uint32_t bits_of(ni mask) { // one bit a lane
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask);
#elif defined(__AVX2__)
    return uint32_t(_mm256_movemask_ps((__m256)mask));
#elif defined(__SSE2__)
    return uint32_t(_mm_movemask_ps((__m128)mask));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    constexpr ni place = {1, 2, 4, 8};
    return vaddvq_u32((uint32x4_t)(mask & place));
#else
    uint32_t bits = 0;
    for (int n = 0; n < WIDTH; ++n) bits |= uint32_t(mask[n] & 1) << n;
    return bits;
#endif
}

inline uint32_t at_least(nf a, nf b) { // one bit a lane: a >= b
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#else
    return bits_of(a >= b);
#endif
}

inline ni expand(uint32_t bits, ni) { // the inverse, of the lowest bits
    ni place;
    for (int n = 0; n < WIDTH; ++n) place[n] = 1 << n;
    return ((ni{} + int32_t(bits)) & place) == place;
}

// e^x for x <= 88, within 2 units in the last place; denormal results and 0 below -87.3 as they should be.
inline nf exp_of(nf x) {
    x = vmax(x, nf{} - 105.0f);
    const nf magic = nf{} + 12582912.0f; // 1.5 * 2^23: adding it rounds to a whole number
    nf whole = (x * 1.44269504f + magic) - magic;
    nf rest = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    nf poly = nf{} + 1.9875691500e-4f;
    poly = poly * rest + 1.3981999507e-3f;
    poly = poly * rest + 8.3334519073e-3f;
    poly = poly * rest + 4.1665795894e-2f;
    poly = poly * rest + 1.6666665459e-1f;
    poly = poly * rest + 5.0000001201e-1f;
    poly = poly * (rest * rest) + rest + 1.0f;
    ni power = __builtin_convertvector(whole, ni);
    ni half = power >> 1; // two factors: 2^power alone has no normal float below -126
    return poly * (nf)((half + 127) << 23) * (nf)((power - half + 127) << 23);
}

// A vector of two halves, for machines whose registers hold fewer lanes than a tile: what an operation does to it, it
// does to each half. Compilers spill vectors that are wider than a register.
template <class Half> struct Pair {
    typedef std::remove_reference_t<decltype(std::declval<Half&>()[0])> Scalar;
    Half low, high;

    Scalar& operator[](int lane) { return reinterpret_cast<Scalar*>(this)[lane]; }
    const Scalar& operator[](int lane) const { return reinterpret_cast<const Scalar*>(this)[lane]; }
};

#define MMLIIR_ARITHMETIC(op)                                                                                        \
    template <class H> inline Pair<H> operator op(const Pair<H>& a, const Pair<H>& b) {                             \
        return {a.low op b.low, a.high op b.high};                                                                   \
    }                                                                                                                \
    template <class H> inline Pair<H> operator op(const Pair<H>& a, typename Pair<H>::Scalar b) {                   \
        return {a.low op b, a.high op b};                                                                            \
    }                                                                                                                \
    template <class H> inline Pair<H> operator op(typename Pair<H>::Scalar a, const Pair<H>& b) {                   \
        return {a op b.low, a op b.high};                                                                            \
    }                                                                                                                \
    template <class H, class B> inline Pair<H>& operator op##=(Pair<H>& a, const B& b) { return a = a op b; }
#define MMLIIR_COMPARISON(op)                                                                                        \
    template <class H> inline auto operator op(const Pair<H>& a, const Pair<H>& b) {                                \
        return Pair<decltype(a.low op b.low)>{a.low op b.low, a.high op b.high};                                     \
    }
MMLIIR_ARITHMETIC(+)
MMLIIR_ARITHMETIC(-)
MMLIIR_ARITHMETIC(*)
MMLIIR_ARITHMETIC(/)
MMLIIR_ARITHMETIC(&)
MMLIIR_ARITHMETIC(|)
MMLIIR_COMPARISON(<)
MMLIIR_COMPARISON(<=)
MMLIIR_COMPARISON(>)
MMLIIR_COMPARISON(>=)
MMLIIR_COMPARISON(==)
MMLIIR_COMPARISON(!=)
#undef MMLIIR_ARITHMETIC
#undef MMLIIR_COMPARISON

template <class H> inline Pair<H> operator-(const Pair<H>& a) { return {-a.low, -a.high}; }
template <class H> inline Pair<H> operator~(const Pair<H>& a) { return {~a.low, ~a.high}; }
template <class H> inline Pair<H> vmax(const Pair<H>& a, const Pair<H>& b) {
    return {vmax(a.low, b.low), vmax(a.high, b.high)};
}
template <class H> inline Pair<H> vmin(const Pair<H>& a, const Pair<H>& b) {
    return {vmin(a.low, b.low), vmin(a.high, b.high)};
}
template <class H> inline Pair<H> exp_of(const Pair<H>& x) { return {exp_of(x.low), exp_of(x.high)}; }
template <class H> inline auto as_bits(const Pair<H>& a) {
    return Pair<decltype(as_bits(a.low))>{as_bits(a.low), as_bits(a.high)};
}
template <class H> inline auto as_floats(const Pair<H>& a) {
    return Pair<decltype(as_floats(a.low))>{as_floats(a.low), as_floats(a.high)};
}
template <class M, class H> inline Pair<H> blend(const Pair<M>& mask, const Pair<H>& yes, const Pair<H>& no) {
    return {blend(mask.low, yes.low, no.low), blend(mask.high, yes.high, no.high)};
}
template <class H> inline uint32_t bits_of(const Pair<H>& mask) {
    return bits_of(mask.low) | bits_of(mask.high) << (sizeof(H) / 4);
}
template <class H> inline uint32_t at_least(const Pair<H>& a, const Pair<H>& b) {
    return at_least(a.low, b.low) | at_least(a.high, b.high) << (sizeof(H) / 4);
}
template <class H> inline Pair<H> expand(uint32_t bits, const Pair<H>&) {
    return {expand(bits, H{}), expand(bits >> (sizeof(H) / 4), H{})};
}

template <class Native> struct LanesOf {
    typedef std::conditional_t<WIDTH == 16, Native, std::conditional_t<WIDTH == 8, Pair<Native>, Pair<Pair<Native>>>>
        type;
};
typedef LanesOf<nf>::type vf;
typedef LanesOf<ni>::type vi;
static_assert(sizeof(vf) == 4 * LANES && sizeof(vi) == 4 * LANES, "one lane a query of a tile");

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr float LOWEST_EXPONENT = -80.0f; // of a mixture, as in gaussian_mixture.py

inline vf splat(float x) { return x - vf{}; }
inline vi splat_i(int32_t x) { return x - vi{}; }
inline vi expand(uint16_t bits) { return expand(bits, vi{}); } // one bit a lane -> all bits of the lane
inline vf masked(vi mask, vf own) { return as_floats(as_bits(own) & mask); } // 0 elsewhere
inline bool any(vi is) { return bits_of(is) != 0; }

template <class T> class Buffer { // aligned to a cache line, not initialised
  public:
    Buffer() = default;
    explicit Buffer(size_t count) { resize(count); }
    void resize(size_t count) {
        std::free(data_);
        size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
        data_ = static_cast<T*>(std::aligned_alloc(64, std::max<size_t>(bytes, 64)));
        if (!data_) throw std::bad_alloc();
    }
    ~Buffer() { std::free(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    T& operator[](size_t n) { return data_[n]; }
    T* at(size_t n) { return data_ + n; }
    const T* at(size_t n) const { return data_ + n; }

  private:
    T* data_ = nullptr;
};

template <int N> void dot(const float* query, const float* keys, size_t stride, int channels, vf* out) {
    vf sum[N];
#pragma GCC unroll 24
    for (int n = 0; n < N; ++n) sum[n] = vf{};
    for (int c = 0; c < channels; ++c, query += LANES, keys += stride) {
        const vf own = *reinterpret_cast<const vf*>(query);
#pragma GCC unroll 24
        for (int n = 0; n < N; ++n) sum[n] += own * keys[n];
    }
#pragma GCC unroll 24
    for (int n = 0; n < N; ++n) out[n] = sum[n];
}

using Dot = void (*)(const float*, const float*, size_t, int, vf*);
template <class Counts> struct Table;
template <int... N> struct Table<std::integer_sequence<int, N...>> {
    static constexpr Dot dots[] = {dot<N + 1>...};
};
using Dots = Table<std::make_integer_sequence<int, BLOCK>>;

// Logits of `count` neighbouring keys of a panel, in pieces of about the same size.
void dot_pieces(const float* query, const float* keys, size_t stride, int channels, int count, vf* out) {
    for (int pieces = (count + BLOCK - 1) / BLOCK; pieces > 0; --pieces) {
        int size = (count + pieces - 1) / pieces;
        Dots::dots[size - 1](query, keys, stride, channels, out);
        keys += size, out += size, count -= size;
    }
}

} // namespace

extern "C" {

struct MmliirJob {
    const float* query;          // (C, h, w)
    const float* const* keys;    // R times (C, h, w)
    const float* const* values;  // R times (K, h, w)
    const int32_t* labels;       // (R, h, w) the only channel with a value, -1: none; NULL: read `values`
    const float* scales;         // (R, h, w) the value in that channel
    const int32_t* radius;       // R; -1: the whole frame
    const float* const* offsets; // R times NULL or (2, h, w) (x, y): where the windows of the keys are displaced to
    const float* const* value_offsets; // the same for the values
    float* out;                  // (K, h, w)
    int32_t channels, height, width, references, value_channels;
    int32_t shape, zero_logit;   // 0: square; 1: cells nearer than the radius; 2: cells up to it
    int32_t topk;                // 0: all keys; the query is then divided by the temperature
    int32_t share_ties;          // keys that tie with the k-th share the places that the better ones leave
    int32_t over_all;            // the kept weights are those of a soft-max over all keys
    float temperature;
    int32_t components;          // of the mixture that replaces a window; 0: none
    int32_t fixed_width, keep_mass;
    float threshold;             // replace where the largest probability is above this; below 0: everywhere
    float width_of_bump, variance_floor;
    int32_t stretched;           // places of a displaced window are n / (n - 1) cells apart on an axis of n cells
};

enum { MMLIIR_DONE = 0, MMLIIR_NOT_FINITE = 1, MMLIIR_NO_MEMORY = 2 };
}

namespace {

// The keys that one tile can reach in one reference, or some rows of a whole frame.
struct Window {
    int radius;                   // -1: none
    int rows, columns;            // of a patch around a tile
    std::vector<int> first, last; // x range of each row that some lane reaches
    std::vector<uint16_t> member; // (rows, columns) one bit a lane: within the lane's window
    std::vector<uint16_t> square; // (rows, columns) one bit a lane: within the square around it

    Window() = default;
    Window(int r, int shape) : radius(r), rows(SIDE + 2 * r), columns(SIDE + 2 * r) {
        member.assign(size_t(rows) * columns, 0);
        square = member;
        for (int y = 0; y < rows; ++y) {
            int low = columns, high = 0;
            for (int x = 0; x < columns; ++x) {
                for (int lane = 0; lane < LANES; ++lane) {
                    int dy = y - r - lane / SIDE, dx = x - r - lane % SIDE;
                    if (std::abs(dy) > r || std::abs(dx) > r) continue;
                    square[size_t(y) * columns + x] |= uint16_t(1u << lane);
                    if (!has(shape, r, dx, dy)) continue;
                    member[size_t(y) * columns + x] |= uint16_t(1u << lane);
                    low = std::min(low, x), high = std::max(high, x + 1);
                }
            }
            first.push_back(std::min(low, high)), last.push_back(high);
        }
    }

    static bool has(int shape, int r, int dx, int dy) {
        int apart = dx * dx + dy * dy;
        return shape == 0 || (shape == 1 ? apart < r * r || !apart : apart <= r * r);
    }
};

// Logits of some lanes of one tile over one patch of keys. Key (y, x) of the patch is cell (top + y, left + x) of the
// frame, or when displaced each lane's own place near it.
struct Patch {
    int reference, top, left, rows, columns;
    const Window* window; // nullptr: every lane reaches every key
    vf* logits;           // (rows, columns)
    uint16_t lanes;
    bool displaced;
};

// The centres of a tile's displaced windows: on each axis, x and y, the cell at or before one, and how far behind it.
struct Centres {
    int low[2][LANES];
    float fraction[2][LANES];
};

// The cells from which the displaced windows of some lanes are mixed, also outside the frame.
struct Box {
    int first[2], size[2]; // x, y

    size_t area() const { return size_t(size[0]) * size[1]; }
};

struct Group {
    uint16_t lanes;
    Box box;
};

struct Kept {
    float logit;
    int32_t key; // reference * h * w + cell; -1: a cell outside the frame
};

class Band {
  public:
    Band(const MmliirJob& job, int start, int stop)
        : job_(job), start_(start), stop_(std::min(stop, job.height)),
          across_((job.width + SIDE - 1) / SIDE), tiles_(across_ * ((stop_ - start + SIDE - 1) / SIDE)),
          cells_(size_t(job.height) * job.width) {
        int lines = (job.width + 15) / 16;
        panel_ = PANEL ? PANEL : 16 * (lines | 1); // an odd number of cache lines: channels share no cache set
        row_ = size_t((job.width + panel_ - 1) / panel_) * panel_ * job.channels;
    }

    int run() {
        pack_queries();
        bool good = job_.topk ? run_topk() : job_.components ? run_mixture() : run_all();
        return good && finite_ ? MMLIIR_DONE : MMLIIR_NOT_FINITE;
    }

  private:
    void pack_queries() {
        queries_.resize(size_t(tiles_) * job_.channels * LANES);
        lanes_.assign(tiles_, 0);
        for (int tile = 0; tile < tiles_; ++tile) {
            float* to = queries_.at(size_t(tile) * job_.channels * LANES);
            std::memset(to, 0, sizeof(float) * job_.channels * LANES);
            for (int lane = 0; lane < LANES; ++lane) {
                int y = row_of(tile) + lane / SIDE, x = column_of(tile) + lane % SIDE;
                if (y >= job_.height || x >= job_.width) continue;
                lanes_[tile] |= uint16_t(1u << lane);
                const float* from = job_.query + size_t(y) * job_.width + x;
                for (int c = 0; c < job_.channels; ++c) to[c * LANES + lane] = from[c * cells_];
            }
            check(to, job_.channels * LANES);
        }
    }

    // Rows first..last of a reference as [row][panel][channel][x].
    void pack_keys(int reference, int first, int last) {
        const size_t needed = row_ * (last - first), step = size_t(panel_) * job_.channels;
        if (needed > packed_size_) packed_.resize(packed_size_ = needed);
        for (int y = first; y < last; ++y) {
            for (int c = 0; c < job_.channels; ++c) {
                const float* from = job_.keys[reference] + c * cells_ + size_t(y) * job_.width;
                float* to = packed_.at(row_ * (y - first) + size_t(c) * panel_);
                int left = job_.width;
                for (; PANEL && left > PANEL; left -= PANEL, from += PANEL, to += step)
                    std::memcpy(to, from, sizeof(float) * PANEL);
                std::memcpy(to, from, sizeof(float) * left);
                check(from + left - job_.width, job_.width);
            }
        }
        packed_first_ = first;
    }

    // Logits of `count` cells of a packed row, from x on.
    void dot_row(const float* query, int y, int x, int count, vf* out) const {
        const float* row = packed_.at(row_ * (y - packed_first_));
        while (count > 0) {
            const int before = x % panel_, size = std::min(count, panel_ - before);
            const float* keys = row + size_t(x - before) * job_.channels + before;
            dot_pieces(query, keys, panel_, job_.channels, size, out);
            x += size, out += size, count -= size;
        }
    }

    void check(const float* numbers, int count) {
        uint32_t bad = 0;
        for (int n = 0; n < count; ++n) {
            uint32_t bits;
            std::memcpy(&bits, numbers + n, 4);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
        if (bad) finite_ = false;
    }

    int row_of(int tile) const { return start_ + tile / across_ * SIDE; }
    int column_of(int tile) const { return tile % across_ * SIDE; }

    const Window& window_of(int radius) {
        for (auto& own : windows_)
            if (own->radius == radius) return *own;
        windows_.push_back(new Window(radius, job_.shape));
        return *windows_.back();
    }

    // Call consume(tile, patch) for every tile and everything that it can reach, window after window, displaced ones,
    // then the references without one. `wanted`: nullptr, or which tiles.
    template <class Consume> bool sweep(const uint8_t* wanted, Consume consume) {
        for (int r = 0; r < job_.references && finite_; ++r) {
            if (job_.radius[r] < 0 || job_.offsets[r]) continue;
            const Window& window = window_of(job_.radius[r]);
            int first = std::max(0, start_ - window.radius), last = std::min(job_.height, stop_ + window.radius);
            pack_keys(r, first, last);
            reserve(size_t(window.rows) * window.columns);
            for (int tile = 0; tile < tiles_; ++tile) {
                if (wanted && !wanted[tile]) continue;
                Patch patch{r, row_of(tile) - window.radius, column_of(tile) - window.radius, window.rows,
                            window.columns, &window, logits_.at(0), lanes_[tile], false};
                compare(tile, patch, last);
                consume(tile, patch);
            }
        }
        for (int r = 0; r < job_.references && finite_; ++r)
            if (job_.offsets[r]) sweep_displaced(r, consume);
        int rows = std::max(1, WHOLE_FRAME_KEYS / job_.width);
        for (int r = 0; r < job_.references && finite_; ++r) {
            if (job_.radius[r] >= 0) continue;
            reserve(size_t(rows) * job_.width);
            for (int y = 0; y < job_.height; y += rows) {
                int last = std::min(job_.height, y + rows);
                pack_keys(r, y, last);
                for (int tile = 0; tile < tiles_; ++tile) {
                    if (wanted && !wanted[tile]) continue;
                    Patch patch{r, y, 0, last - y, job_.width, nullptr, logits_.at(0), lanes_[tile], false};
                    compare(tile, patch, last);
                    consume(tile, patch);
                }
            }
        }
        return finite_;
    }

    void reserve(size_t logits) {
        if (logits > logits_size_) logits_.resize(logits_size_ = logits);
    }

    // Fill in the logits of the keys in the frame.
    void compare(int tile, const Patch& patch, int packed_last) {
        const float* query = queries_.at(size_t(tile) * job_.channels * LANES);
        int low = std::max(packed_first_, patch.top), high = std::min(packed_last, patch.top + patch.rows);
        for (int y = low; y < high; ++y) {
            int first, last;
            inside(patch, y - patch.top, first, last);
            if (first >= last) continue;
            vf* own = patch.logits + size_t(y - patch.top) * patch.columns;
            dot_row(query, y, patch.left + first, last - first, own + first);
        }
    }

    // ------------------------------------------------------------------------------------------ displaced windows

    // `sweep` over one displaced reference.
    template <class Consume> void sweep_displaced(int reference, Consume consume) {
        const int last = pack_displaced(reference);
        for (int tile = 0; tile < tiles_ && finite_; ++tile) consume(tile, compare_displaced(reference, tile, last));
    }

    // Pack the rows that the band's windows reach; -> the end of these.
    [[gnu::noinline]] int pack_displaced(int reference) {
        radius_ = job_.radius[reference];
        const int sizes[2] = {job_.width, job_.height};
        for (int axis = 0; axis < 2; ++axis) {
            const int steps = sizes[axis] - 1;
            spare_[axis] = job_.stretched && steps > 0 ? (radius_ + steps - 1) / steps : 0;
            stretch_[axis] = job_.stretched && steps > 0 ? 1.0f / float(steps) : 0.0f;
        }
        int first = job_.height, last = 0;
        for (int tile = 0; tile < tiles_; ++tile) {
            find_centres(job_.offsets[reference], tile, key_centres_);
            const Box box = box_of(lanes_[tile], key_centres_);
            first = std::min(first, box.first[1]), last = std::max(last, box.first[1] + box.size[1]);
        }
        first = std::max(first, 0), last = std::min(last, job_.height);
        pack_keys(reference, first, std::max(first, last));
        // No row may escape the check because no window reaches it: that would depend on the band.
        for (int c = 0; c < job_.channels; ++c)
            check(job_.keys[reference] + c * cells_ + size_t(start_) * job_.width, (stop_ - start_) * job_.width);
        return last;
    }

    // Logits of all places of a tile's windows. How they are compared depends on these alone, not on the band.
    [[gnu::noinline]] Patch compare_displaced(int reference, int tile, int packed_last) {
        const float* offsets = job_.offsets[reference];
        const float* value_offsets = job_.value_offsets[reference];
        const uint16_t lanes = lanes_[tile];
        find_centres(offsets, tile, key_centres_);
        find_centres(value_offsets, tile, value_centres_);
        key_places_ = key_centres_, value_places_ = value_centres_;
        const Box box = box_of(lanes, key_centres_);
        Patch patch{reference, box.first[1], box.first[0], box.size[1], box.size[0], &places_, nullptr, lanes, true};
        aligned_ = value_offsets != offsets || box.area() * ALIGNED_SHARE > 4 * reach(0) * reach(1);
        if (aligned_) align(patch);
        const size_t cells = size_t(patch.rows) * patch.columns;
        reserve(cells);
        patch.logits = logits_.at(0);
        if (aligned_) {
            if (lanes != 0xffff) std::fill(patch.logits, patch.logits + cells, vf{});
            for (const Group& group : groups_of(lanes, key_centres_)) {
                reserve_box(group.box.area());
                compare_box(tile, group.box, packed_last, boxed_.at(0));
                for_windows(group, key_centres_, [&](size_t in_box, size_t in_window, int lane) {
                    reinterpret_cast<float*>(patch.logits + in_window)[lane] =
                        reinterpret_cast<float*>(boxed_.at(in_box))[lane];
                });
            }
        } else {
            compare_box(tile, box, packed_last, patch.logits);
        }
        patch.rows -= 1 + 2 * spare_[1];
        mix(patch);
        find_places(patch);
        return patch;
    }

    // Each lane's window in the same place of the patch, and no more than that.
    void align(Patch& patch) {
        patch.top = patch.left = 0, patch.rows = 2 * reach(1), patch.columns = 2 * reach(0);
        for (int axis = 0; axis < 2; ++axis)
            for (int lane = 0; lane < LANES; ++lane)
                key_places_.low[axis][lane] = value_places_.low[axis][lane] = radius_ + spare_[axis];
    }

    int reach(int axis) const { return radius_ + spare_[axis] + 1; }
    void reserve_box(size_t logits) {
        if (logits > boxed_size_) boxed_.resize(boxed_size_ = logits);
    }

    // Call each(key of the box, key of the lane's own window, lane) for all cells that the group's windows mix.
    template <class Each> void for_windows(const Group& group, const Centres& centres, Each each) const {
        const int rows = 2 * reach(1), columns = 2 * reach(0), stride = group.box.size[0];
        int count = 0, lane[LANES];
        size_t corner[LANES];
        for (int own = 0; own < LANES; ++own) {
            if (!(group.lanes >> own & 1)) continue;
            const int y = centres.low[1][own] + 1 - reach(1) - group.box.first[1];
            const int x = centres.low[0][own] + 1 - reach(0) - group.box.first[0];
            corner[count] = size_t(y) * stride + x, lane[count++] = own;
        }
        for (int row = 0; row < rows; ++row)
            for (int x = 0; x < columns; ++x)
                for (int n = 0; n < count; ++n)
                    each(corner[n] + size_t(row) * stride + x, size_t(row) * columns + x, lane[n]);
    }

    void find_centres(const float* offsets, int tile, Centres& to) const {
        for (int lane = 0; lane < LANES; ++lane) {
            const int at[2] = {column_of(tile) + lane % SIDE, row_of(tile) + lane / SIDE};
            const bool used = lanes_[tile] >> lane & 1;
            for (int axis = 0; axis < 2; ++axis) {
                const float offset = used ? offsets[axis * cells_ + size_t(at[1]) * job_.width + at[0]] : 0.0f;
                const float whole = std::floor(offset);
                // Farther out the window holds nothing but zeros, or the border cells again and again.
                const int far = radius_ + spare_[axis], last = (axis ? job_.height : job_.width) - 1;
                const float lowest = float(-far - (job_.zero_logit ? 2 : 1));
                const float highest = float(last + far + (job_.zero_logit ? 2 : 0));
                to.low[axis][lane] = int(std::min(std::max(lowest, float(at[axis]) + whole), highest));
                to.fraction[axis][lane] = offset - whole;
            }
        }
    }

    Box box_of(uint16_t lanes, const Centres& centres) const {
        Box box;
        for (int axis = 0; axis < 2; ++axis) {
            int low = INT32_MAX, high = INT32_MIN;
            for (int lane = 0; lane < LANES; ++lane) {
                if (!(lanes >> lane & 1)) continue;
                low = std::min(low, centres.low[axis][lane]), high = std::max(high, centres.low[axis][lane]);
            }
            box.first[axis] = low - radius_ - spare_[axis];
            box.size[axis] = high - low + 2 * (radius_ + spare_[axis] + 1);
        }
        return box;
    }

    const std::vector<Group>& groups_of(uint16_t lanes, const Centres& centres) {
        groups_.clear();
        split(lanes, centres);
        return groups_;
    }

    // Append `lanes` to the groups, halved along the axis on which their centres lie farthest apart, again and again,
    // where that makes their boxes smaller in all; -> the cells of all boxes.
    size_t split(uint16_t lanes, const Centres& centres) {
        const Box box = box_of(lanes, centres);
        const size_t whole = box.area(), before = groups_.size();
        const int axis = box.size[1] - 2 * reach(1) > box.size[0] - 2 * reach(0);
        const int apart = box.size[axis] - 2 * reach(axis);
        if (apart && whole > 8 * size_t(reach(0)) * reach(1)) { // two groups have at least that
            const int middle = box.first[axis] + reach(axis) - 1 + apart / 2;
            uint16_t low = 0;
            for (int lane = 0; lane < LANES; ++lane)
                if ((lanes >> lane & 1) && centres.low[axis][lane] <= middle) low |= uint16_t(1u << lane);
            const size_t parts = split(low, centres) + split(uint16_t(lanes & ~low), centres);
            if (parts < whole) return parts;
            groups_.resize(before);
        }
        groups_.push_back({lanes, box});
        return whole;
    }

    // Logits of the cells of a box; outside the frame 0, or what the nearest cell inside has.
    void compare_box(int tile, const Box& box, int packed_last, vf* logits) const {
        const float* query = queries_.at(size_t(tile) * job_.channels * LANES);
        const int rows = box.size[1], columns = box.size[0];
        const int left = std::max(0, -box.first[0]), right = std::min(columns, job_.width - box.first[0]);
        const int top = std::max(0, packed_first_ - box.first[1]), bottom = std::min(rows, packed_last - box.first[1]);
        if (left >= right || top >= bottom) {
            std::fill(logits, logits + box.area(), vf{});
            return;
        }
        for (int row = top; row < bottom; ++row) {
            vf* own = logits + size_t(row) * columns;
            dot_row(query, box.first[1] + row, box.first[0] + left, right - left, own + left);
            std::fill(own, own + left, job_.zero_logit ? vf{} : own[left]);
            std::fill(own + right, own + columns, job_.zero_logit ? vf{} : own[right - 1]);
        }
        for (int row = 0; row < rows; ++row) {
            if (row >= top && row < bottom) continue;
            vf* own = logits + size_t(row) * columns;
            if (job_.zero_logit) {
                std::fill(own, own + columns, vf{});
            } else {
                const vf* nearest = logits + size_t(row < top ? top : bottom - 1) * columns;
                std::copy(nearest, nearest + columns, own);
            }
        }
    }

    static vf lanes_of(const float* numbers) {
        vf own;
        std::memcpy(&own, numbers, sizeof own);
        return own;
    }

    // The share that cell n + tap of a box has in place n of an axis: 1 in its place, 0 from one cell away.
    void find_shares(const Centres& centres, int axis, int first, int count) {
        const int taps = 2 + 2 * spare_[axis];
        shares_[axis].resize(size_t(count) * taps);
        const vf fraction = lanes_of(centres.fraction[axis]);
        for (int n = 0; n < count; ++n) {
            vf step;
            for (int lane = 0; lane < LANES; ++lane)
                step[lane] = float(first + spare_[axis] + n - centres.low[axis][lane]);
            const vf place = fraction + step * stretch_[axis];
            for (int tap = 0; tap < taps; ++tap) {
                const vf away = place - float(tap - spare_[axis]);
                shares_[axis][size_t(n) * taps + tap] = vmax(1.0f - vmax(away, -away), vf{});
            }
        }
    }

    // Logits of cells -> those of places, in place. The last columns stay what they were.
    void mix(const Patch& patch) {
        const int spare_x = 1 + 2 * spare_[0], spare_y = 1 + 2 * spare_[1];
        const int columns = patch.columns - spare_x;
        if (job_.stretched) {
            find_shares(key_places_, 0, patch.left, columns);
            find_shares(key_places_, 1, patch.top, patch.rows);
            for (int row = 0; row < patch.rows + spare_y; ++row) {
                vf* own = patch.logits + size_t(row) * patch.columns;
                const vf* share = shares_[0].at(0);
                for (int x = 0; x < columns; ++x) {
                    vf sum = vf{};
                    for (int tap = 0; tap <= spare_x; ++tap) sum += *share++ * own[x + tap];
                    own[x] = sum;
                }
            }
            for (int row = 0; row < patch.rows; ++row) {
                const vf* share = shares_[1].at(size_t(row) * (spare_y + 1));
                vf* own = patch.logits + size_t(row) * patch.columns;
                for (int x = 0; x < columns; ++x) {
                    vf sum = vf{};
                    for (int tap = 0; tap <= spare_y; ++tap) sum += share[tap] * own[size_t(tap) * patch.columns + x];
                    own[x] = sum;
                }
            }
            return;
        }
        const vf right = lanes_of(key_centres_.fraction[0]), below = lanes_of(key_centres_.fraction[1]);
        for (int row = 0; row <= patch.rows; ++row) {
            vf* own = patch.logits + size_t(row) * patch.columns;
            vf* above = own - patch.columns;
            for (int x = 0; x < columns; ++x) {
                const vf mixed = own[x] + (own[x + 1] - own[x]) * right;
                own[x] = mixed;
                if (row) above[x] += (mixed - above[x]) * below;
            }
        }
    }

    // Which places belong to the window of which lane.
    void find_places(const Patch& patch) {
        const int counts[2] = {patch.columns - 1 - 2 * spare_[0], patch.rows}, firsts[2] = {patch.left, patch.top};
        std::vector<uint16_t> square[2], inside[2];
        for (int axis = 0; axis < 2; ++axis) {
            const float end = float(axis ? job_.height : job_.width) - 0.5f;
            for (int n = 0; n < counts[axis]; ++n) {
                uint16_t within = 0, counted = 0;
                for (int lane = 0; lane < LANES; ++lane) {
                    const int away = firsts[axis] + spare_[axis] + n - key_places_.low[axis][lane];
                    const float place = float(key_centres_.low[axis][lane] + away) + key_centres_.fraction[axis][lane];
                    within |= uint16_t((std::abs(away) <= radius_) << lane);
                    counted |= uint16_t((job_.zero_logit || (place >= -0.5f && place <= end)) << lane);
                }
                square[axis].push_back(within), inside[axis].push_back(uint16_t(within & counted));
            }
        }
        places_.columns = counts[0];
        places_.square.assign(size_t(patch.rows) * patch.columns, 0);
        places_.member.assign(size_t(patch.rows) * patch.columns, 0);
        for (int row = 0; row < patch.rows; ++row) {
            for (int x = 0; x < counts[0]; ++x) {
                const size_t key = size_t(row) * patch.columns + x;
                places_.square[key] = square[1][row] & square[0][x];
                places_.member[key] = inside[1][row] & inside[0][x];
            }
        }
        if (!job_.shape) return;
        for (int row = 0; row < patch.rows; ++row) {
            for (int x = 0; x < counts[0]; ++x) {
                uint16_t& own = places_.member[size_t(row) * patch.columns + x];
                for (int lane = 0; lane < LANES; ++lane) {
                    const int dx = patch.left + spare_[0] + x - key_places_.low[0][lane];
                    const int dy = patch.top + spare_[1] + row - key_places_.low[1][lane];
                    if ((own >> lane & 1) && !Window::has(job_.shape, radius_, dx, dy)) own ^= uint16_t(1u << lane);
                }
            }
        }
    }

    // sums[k] += sum over the places of weight * value. Overwrites the weights, which must be 0 outside all windows.
    [[gnu::noinline]] void read_places(const Patch& patch, vf* sums) {
        Patch cells = patch;
        cells.rows += 1 + 2 * spare_[1];
        cells.window = nullptr, cells.displaced = false;
        if (job_.stretched) {
            spread_stretched(cells);
        } else {
            spread(cells);
        }
        if (!aligned_) return read_cells(cells, sums);
        for (const Group& group : groups_of(patch.lanes, value_centres_)) {
            reserve_box(group.box.area());
            std::fill(boxed_.at(0), boxed_.at(group.box.area()), vf{});
            for_windows(group, value_centres_, [&](size_t in_box, size_t in_window, int lane) {
                reinterpret_cast<float*>(boxed_.at(in_box))[lane] =
                    reinterpret_cast<float*>(cells.logits + in_window)[lane];
            });
            Patch own{patch.reference, group.box.first[1], group.box.first[0], group.box.size[1], group.box.size[0],
                      nullptr, boxed_.at(0), group.lanes, false};
            read_cells(own, sums);
        }
    }

    void read_cells(const Patch& cells, vf* sums) {
        if (!job_.zero_logit) fold(cells);
        read(cells, sums);
    }

    // Weights of places -> those of the cells that they are mixed from, in place.
    void spread(const Patch& cells) const {
        const vf right = lanes_of(value_places_.fraction[0]), below = lanes_of(value_places_.fraction[1]);
        for (int row = cells.rows - 1; row >= 0; --row) {
            vf* own = cells.logits + size_t(row) * cells.columns;
            const vf* above = own - cells.columns;
            const bool first = row == 0, last = row == cells.rows - 1;
            vf next = vf{};
            for (int x = cells.columns - 1; x > 0; --x) {
                vf sum = last ? vf{} : own[x - 1] - own[x - 1] * below;
                if (!first) sum += above[x - 1] * below;
                own[x] = next - next * right + sum * right;
                next = sum;
            }
            own[0] = next - next * right;
        }
    }

    void spread_stretched(const Patch& cells) {
        const int spare_x = 1 + 2 * spare_[0], spare_y = 1 + 2 * spare_[1];
        const int rows = cells.rows - spare_y, columns = cells.columns - spare_x;
        find_shares(value_places_, 0, cells.left, columns);
        find_shares(value_places_, 1, cells.top, rows);
        for (int row = cells.rows - 1; row >= 0; --row) {
            vf* own = cells.logits + size_t(row) * cells.columns;
            for (int x = 0; x < columns; ++x) {
                vf sum = vf{};
                for (int tap = std::max(0, row - rows + 1); tap <= std::min(spare_y, row); ++tap) {
                    const vf weight = cells.logits[size_t(row - tap) * cells.columns + x];
                    sum += shares_[1][size_t(row - tap) * (spare_y + 1) + tap] * weight;
                }
                own[x] = sum;
            }
            for (int x = cells.columns - 1; x >= 0; --x) {
                vf sum = vf{};
                for (int tap = std::max(0, x - columns + 1); tap <= std::min(spare_x, x); ++tap)
                    sum += shares_[0][size_t(x - tap) * (spare_x + 1) + tap] * own[x - tap];
                own[x] = sum;
            }
        }
    }

    // What lies outside the frame counts as the nearest cell inside.
    void fold(const Patch& cells) const {
        const int left = std::max(0, -cells.left), right = std::min(cells.columns, job_.width - cells.left);
        const int top = std::max(0, -cells.top), bottom = std::min(cells.rows, job_.height - cells.top);
        for (int row = 0; row < cells.rows; ++row) {
            vf* own = cells.logits + size_t(row) * cells.columns;
            for (int x = 0; x < left; ++x) own[left] += own[x];
            for (int x = right; x < cells.columns; ++x) own[right - 1] += own[x];
        }
        for (int row = 0; row < cells.rows; ++row) {
            if (row >= top && row < bottom) continue;
            const vf* own = cells.logits + size_t(row) * cells.columns;
            vf* nearest = cells.logits + size_t(row < top ? top : bottom - 1) * cells.columns;
            for (int x = left; x < right; ++x) nearest[x] += own[x];
        }
    }

    // Range of x of a row of a patch that lies in the frame and that some lane reaches; empty outside the frame.
    void inside(const Patch& patch, int row, int& first, int& last) const {
        first = patch.window ? patch.window->first[row] : 0;
        last = patch.window ? patch.window->last[row] : patch.columns;
        first = std::max(first, -patch.left);
        last = std::min(last, job_.width - patch.left);
        int y = patch.top + row;
        if (y < 0 || y >= job_.height) last = first;
        last = std::max(first, last);
    }

    // Call key(logit, lanes, cell) for each key of the patch that takes part, cell = -1 for those outside the frame
    // (whose logit is 0, where `zero_logit` lets them take part) and for displaced places.
    template <class Key> void for_keys(const Patch& patch, Key key) const {
        const uint16_t lanes = patch.lanes;
        if (patch.displaced) {
            for (int row = 0; row < patch.rows; ++row) {
                const size_t first = size_t(row) * patch.columns;
                const uint16_t* member = &patch.window->member[first];
                for (int x = 0; x < patch.window->columns; ++x)
                    key(patch.logits[first + x], uint16_t(member[x] & lanes), -1);
            }
            return;
        }
        for (int row = 0; row < patch.rows; ++row) {
            int first, last;
            inside(patch, row, first, last);
            const vf* logits = patch.logits + size_t(row) * patch.columns;
            const uint16_t* member = patch.window ? &patch.window->member[size_t(row) * patch.columns] : nullptr;
            int32_t cell = (patch.top + row) * job_.width + patch.left;
            if (job_.zero_logit && patch.window) {
                int begin = patch.window->first[row], end = patch.window->last[row];
                for (int x = begin; x < end; ++x) {
                    bool here = x >= first && x < last;
                    key(here ? logits[x] : vf{}, uint16_t(member[x] & lanes), here ? cell + x : -1);
                }
            } else if (member) {
                for (int x = first; x < last; ++x) key(logits[x], uint16_t(member[x] & lanes), cell + x);
            } else {
                for (int x = first; x < last; ++x) key(logits[x], lanes, cell + x);
            }
        }
    }

    // ------------------------------------------------------------------------------------------- the k best keys

    bool run_topk() {
        const int k = job_.topk, room = k + SPARE;
        const size_t queries = size_t(tiles_) * LANES;
        kept_.resize(queries * room);
        std::vector<int32_t> count(queries, 0);
        std::vector<float> dropped(queries, -INF); // the largest logit that found no room
        Buffer<vf> least(tiles_), highest(tiles_), total(tiles_);
        for (int tile = 0; tile < tiles_; ++tile) {
            least[tile] = splat(-INF), highest[tile] = splat(-FLT_MAX), total[tile] = vf{};
        }
        const float inverse = 1.0f / job_.temperature;
        bool good = sweep(nullptr, [&](int tile, const Patch& patch) {
            vf bound = least[tile];
            const int32_t base = int32_t(patch.reference * cells_);
            for_keys(patch, [&](vf logit, uint16_t lanes, int32_t cell) {
                uint32_t hits = at_least(logit, bound) & lanes;
                while (hits) {
                    int lane = __builtin_ctz(hits);
                    hits &= hits - 1;
                    size_t q = size_t(tile) * LANES + lane;
                    bound[lane] = insert(kept_.at(q * room), count[q], dropped[q], k, room,
                                         {logit[lane], cell < 0 ? -1 : base + cell});
                }
            });
            least[tile] = bound;
            if (job_.over_all) add_to_total(patch, inverse, highest[tile], total[tile]);
        });
        if (!good) return false;

        // Keys that tie with the k-th are all kept: where they had no room, look again, now that the k-th is known.
        std::vector<uint8_t> again(tiles_, 0);
        std::vector<std::vector<Kept>> full(queries);
        bool some = false;
        for (size_t q = 0; q < queries; ++q) {
            if (dropped[q] > -INF && count[q] >= k && dropped[q] >= kept_[q * room + k - 1].logit) {
                again[q / LANES] = 1, some = true;
            }
        }
        if (some) {
            good = sweep(again.data(), [&](int tile, const Patch& patch) {
                const int32_t base = int32_t(patch.reference * cells_);
                for_keys(patch, [&](vf logit, uint16_t lanes, int32_t cell) {
                    uint32_t hits = at_least(logit, least[tile]) & lanes;
                    while (hits) {
                        int lane = __builtin_ctz(hits);
                        hits &= hits - 1;
                        full[size_t(tile) * LANES + lane].push_back({logit[lane], cell < 0 ? -1 : base + cell});
                    }
                });
            });
            if (!good) return false;
        }

        std::vector<Query> places;
        for (size_t q = 0; q < queries; ++q) {
            int tile = int(q / LANES), lane = int(q % LANES);
            if (!(lanes_[tile] >> lane & 1)) continue;
            Kept* own = full[q].empty() ? kept_.at(q * room) : full[q].data();
            int size = full[q].empty() ? count[q] : int(full[q].size());
            float top = own[0].logit;
            for (int n = 1; n < size; ++n) top = std::max(top, own[n].logit);
            float sum = 0, scale = 1, part = 1;
            const float last = size > k ? least[tile][lane] : -INF; // some tie with the k-th
            if (job_.share_ties && size > k) {
                int better = 0;
                for (int n = 0; n < size; ++n) better += own[n].logit > last;
                part = float(k - better) / float(size - better);
            }
            for (int n = 0; n < size; ++n) {
                const bool shares = own[n].logit == last;
                own[n].logit = std::exp((own[n].logit - top) * inverse) * (shares ? part : 1.0f);
                sum += own[n].logit;
            }
            if (job_.over_all) {
                scale = std::exp(top * inverse - highest[tile][lane]) / total[tile][lane];
            } else {
                scale = 1 / sum;
            }
            for (int n = 0; n < size; ++n) own[n].logit *= scale;
            int y = row_of(tile) + lane / SIDE, x = column_of(tile) + lane % SIDE;
            places.push_back({own, size, y * job_.width + x});
        }
        read_kept(places);
        return true;
    }

    struct Query {
        const Kept* kept;
        int count;
        int32_t cell;
    };

    // Keep the list sorted, with everything that is at least the k-th; -> the k-th, or -infinity as long as there
    // are fewer.
    static float insert(Kept* list, int32_t& count, float& dropped, int k, int room, Kept entry) {
        if (count == room) { // all but the first k tie with the k-th
            if (entry.logit <= list[k - 1].logit) {
                dropped = std::max(dropped, entry.logit);
                return list[k - 1].logit;
            }
            dropped = std::max(dropped, list[--count].logit);
        }
        int place = count++;
        for (; place > 0 && list[place - 1].logit < entry.logit; --place) list[place] = list[place - 1];
        list[place] = entry;
        if (count < k) return -INF;
        float least = list[k - 1].logit;
        while (count > k && list[count - 1].logit < least) --count;
        return least;
    }

    void add_to_total(const Patch& patch, float inverse, vf& highest, vf& total) const {
        vf top = splat(-FLT_MAX);
        for_keys(patch, [&](vf logit, uint16_t own, int32_t) {
            top = vmax(top, blend(expand(own), logit * inverse, splat(-FLT_MAX)));
        });
        top = vmax(top, highest);
        total *= exp_of(highest - top);
        highest = top;
        for_keys(patch, [&](vf logit, uint16_t own, int32_t) {
            total += masked(expand(own), exp_of(logit * inverse - top));
        });
    }

    struct Term {
        float weight;
        int32_t query; // among the queries of the band
        int32_t key;
        const float* value; // of channel 0
    };

    // Terms in the order of their keys, which is that of their addresses in each reference: lines are read once and
    // one after the other, and the sums of the band, which are hit in any order, are few. Four channels at a time.
    void read_kept(const std::vector<Query>& places) const {
        if (job_.labels) return read_kept_labels(places);
        std::vector<Term> terms;
        for (size_t q = 0; q < places.size(); ++q) {
            for (int n = 0; n < places[q].count; ++n) {
                const Kept& own = places[q].kept[n];
                if (own.key < 0) continue;
                size_t reference = own.key / cells_;
                const float* value = job_.values[reference] + (own.key - reference * cells_);
                terms.push_back({own.logit, int32_t(q), own.key, value});
            }
        }
        std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) {
            return a.key != b.key ? a.key < b.key : a.query < b.query;
        });
        int k = 0;
        for (; k + 4 <= job_.value_channels; k += 4) read_channels<4>(places, terms, k);
        for (; k < job_.value_channels; ++k) read_channels<1>(places, terms, k);
    }

    // `out` holds zeros. The keys of a query come in ascending order, as above, so sums have the same bits.
    void read_kept_labels(const std::vector<Query>& places) const {
        std::vector<Kept> terms;
        for (const Query& place : places) {
            terms.assign(place.kept, place.kept + place.count);
            std::sort(terms.begin(), terms.end(), [](const Kept& a, const Kept& b) { return a.key < b.key; });
            for (const Kept& own : terms) {
                if (own.key < 0 || job_.labels[own.key] < 0) continue;
                job_.out[job_.labels[own.key] * cells_ + place.cell] += own.logit * job_.scales[own.key];
            }
        }
    }

    template <int N>
    void read_channels(const std::vector<Query>& places, const std::vector<Term>& terms, int k) const {
        std::vector<float> sums(places.size() * N, 0.0f);
        const size_t first = k * cells_;
        for (const Term& term : terms) {
            const float* value = term.value + first;
            float* sum = &sums[size_t(term.query) * N];
            for (int c = 0; c < N; ++c) sum[c] += term.weight * value[c * cells_];
        }
        for (size_t q = 0; q < places.size(); ++q)
            for (int c = 0; c < N; ++c) job_.out[(k + c) * cells_ + places[q].cell] = sums[q * N + c];
    }

    // ------------------------------------------------------------------------------------- soft-max over all keys

    // The logits that count, the others -infinity: over the rows and columns of the patch that matter.
    vf highest_of(const Patch& patch) const {
        vf top = splat(-FLT_MAX);
        for_keys(patch, [&](vf logit, uint16_t own, int32_t) {
            top = vmax(top, blend(expand(own), logit, splat(-FLT_MAX)));
        });
        return top;
    }

    bool run_all() {
        const int K = job_.value_channels;
        Buffer<vf> highest(tiles_), total(tiles_), sums(size_t(tiles_) * K);
        for (int tile = 0; tile < tiles_; ++tile) highest[tile] = splat(-FLT_MAX), total[tile] = vf{};
        std::fill(sums.at(0), sums.at(size_t(tiles_) * K), vf{});
        bool good = sweep(nullptr, [&](int tile, const Patch& patch) {
            vf top = vmax(highest[tile], highest_of(patch));
            vf* own_sums = sums.at(size_t(tile) * K);
            if (any(top != highest[tile])) {
                vf shrink = exp_of(highest[tile] - top);
                total[tile] *= shrink;
                for (int k = 0; k < K; ++k) own_sums[k] *= shrink;
                highest[tile] = top;
            }
            if (patch.displaced) {
                total[tile] += weigh_places(patch, top);
                read_places(patch, own_sums);
            } else if (job_.labels) {
                total[tile] += weigh_and_add_labels(patch, top, own_sums);
            } else {
                total[tile] += weigh(patch, top);
                add_values(patch, own_sums);
            }
        });
        if (!good) return false;
        for (int tile = 0; tile < tiles_; ++tile) write(tile, sums.at(size_t(tile) * K), 1.0f / total[tile]);
        return true;
    }

    // Logits -> weights e^(logit - top), in place, 0 for lanes that do not reach a key; -> their sum, in which cells
    // outside the frame count.
    vf weigh(const Patch& patch, vf top) const {
        vf total = vf{};
        for_keys(patch, [&](vf logit, uint16_t own, int32_t cell) {
            vf weight = masked(expand(own), exp_of(logit - top));
            total += weight;
            if (cell >= 0) patch.logits[at_cell(patch, cell)] = weight;
        });
        return total;
    }

    // The same for displaced places; places of no window become 0 too.
    vf weigh_places(const Patch& patch, vf top) const {
        vf total = vf{};
        for (size_t key = 0; key < size_t(patch.rows) * patch.columns; ++key) {
            vi own = expand(uint16_t(patch.window->member[key] & patch.lanes));
            vf weight = masked(own, exp_of(patch.logits[key] - top));
            patch.logits[key] = weight;
            total += weight;
        }
        return total;
    }

    size_t at_cell(const Patch& patch, int32_t cell) const {
        int y = cell / job_.width;
        return size_t(y - patch.top) * patch.columns + (cell - y * job_.width - patch.left);
    }

    // `weigh` and `add_labels` in one go. Neighbours mostly have the same label: its sum stays in a register.
    vf weigh_and_add_labels(const Patch& patch, vf top, vf* sums) const {
        const int32_t* labels = job_.labels + patch.reference * cells_;
        const float* scales = job_.scales + patch.reference * cells_;
        vf total = vf{}, run = vf{};
        int32_t current = -1;
        for_keys(patch, [&](vf logit, uint16_t own, int32_t cell) {
            vf weight = masked(expand(own), exp_of(logit - top));
            total += weight;
            if (cell < 0) return;
            if (labels[cell] != current) {
                if (current >= 0) sums[current] += run;
                current = labels[cell], run = vf{};
            }
            run += weight * scales[cell];
        });
        if (current >= 0) sums[current] += run;
        return total;
    }

    void read(const Patch& patch, vf* sums) const {
        if (job_.labels) {
            add_labels(patch, sums);
        } else {
            add_values(patch, sums);
        }
    }

    void add_labels(const Patch& patch, vf* sums) const {
        const int32_t* labels = job_.labels + patch.reference * cells_;
        const float* scales = job_.scales + patch.reference * cells_;
        vf run = vf{};
        int32_t current = -1;
        for (int row = 0; row < patch.rows; ++row) {
            int first, last;
            inside(patch, row, first, last);
            const vf* weights = patch.logits + size_t(row) * patch.columns;
            int32_t cell = (patch.top + row) * job_.width + patch.left;
            for (int x = first; x < last; ++x) {
                if (labels[cell + x] != current) {
                    if (current >= 0) sums[current] += run;
                    current = labels[cell + x], run = vf{};
                }
                run += weights[x] * scales[cell + x];
            }
        }
        if (current >= 0) sums[current] += run;
    }

    // sums[k] += sum over the keys of weight * value, a few channels at a time.
    void add_values(const Patch& patch, vf* sums) const {
        constexpr int STEP = 4;
        for (int k = 0; k < job_.value_channels; k += STEP) {
            const int count = std::min(STEP, job_.value_channels - k);
            const float* values[STEP];
            vf own[STEP];
            for (int n = 0; n < STEP; ++n) { // the last channel again where there are fewer
                values[n] = job_.values[patch.reference] + (k + std::min(n, count - 1)) * cells_;
                own[n] = vf{};
            }
            for (int row = 0; row < patch.rows; ++row) {
                int first, last;
                inside(patch, row, first, last);
                const vf* weights = patch.logits + size_t(row) * patch.columns;
                std::ptrdiff_t cell = std::ptrdiff_t(patch.top + row) * job_.width + patch.left;
                for (int x = first; x < last; ++x)
                    for (int n = 0; n < STEP; ++n) own[n] += weights[x] * values[n][cell + x];
            }
            for (int n = 0; n < count; ++n) sums[k + n] += own[n];
        }
    }

    void write(int tile, const vf* sums, vf scale) const {
        for (int lane = 0; lane < LANES; ++lane) {
            if (!(lanes_[tile] >> lane & 1)) continue;
            size_t cell = size_t(row_of(tile) + lane / SIDE) * job_.width + column_of(tile) + lane % SIDE;
            for (int k = 0; k < job_.value_channels; ++k) job_.out[k * cells_ + cell] = sums[k][lane] * scale[lane];
        }
    }

    // ------------------------------------------------------------------------- windows replaced by fitted mixtures

    // Two sweeps: the sum over all references must be known before a window's probabilities are.
    bool run_mixture() {
        const int K = job_.value_channels;
        Buffer<vf> highest(tiles_), total(tiles_), sums(size_t(tiles_) * K);
        for (int tile = 0; tile < tiles_; ++tile) highest[tile] = splat(-FLT_MAX), total[tile] = vf{};
        std::fill(sums.at(0), sums.at(size_t(tiles_) * K), vf{});
        bool good = sweep(nullptr, [&](int tile, const Patch& patch) {
            vf top = vmax(highest[tile], highest_of(patch));
            total[tile] *= exp_of(highest[tile] - top);
            highest[tile] = top;
            vf own = vf{};
            for_keys(patch, [&](vf logit, uint16_t lanes, int32_t) {
                own += masked(expand(lanes), exp_of(logit - top));
            });
            total[tile] += own;
        });
        if (!good) return false;
        sweep(nullptr, [&](int tile, const Patch& patch) {
            vf mass = probabilities(patch, highest[tile], 1.0f / total[tile]);
            replace(patch, mass);
            if (patch.displaced) {
                read_places(patch, sums.at(size_t(tile) * K));
            } else {
                read(patch, sums.at(size_t(tile) * K));
            }
        });
        for (int tile = 0; tile < tiles_; ++tile) write(tile, sums.at(size_t(tile) * K), splat(1));
        return true;
    }

    // Whether a key of the patch has a logit of its own.
    bool here(const Patch& patch, int row, int x) const {
        int y = patch.top + row, cell_x = patch.left + x;
        return patch.displaced || (y >= 0 && y < job_.height && cell_x >= 0 && cell_x < job_.width);
    }

    // The lanes for which a key of the patch takes part.
    uint16_t valid(const Patch& patch, int row, int x) const {
        if (!job_.zero_logit && !here(patch, row, x)) return 0;
        return uint16_t(patch.window->member[size_t(row) * patch.columns + x] & patch.lanes);
    }

    // Logits -> probabilities over the whole patch, cells outside the frame included, and `valid_`; -> their sum.
    vf probabilities(const Patch& patch, vf top, vf scale) {
        size_t keys = size_t(patch.rows) * patch.columns;
        if (keys > fitted_size_) fitted_.resize(fitted_size_ = keys), valid_.resize(keys);
        vf total = vf{};
        for (int row = 0; row < patch.rows; ++row) {
            for (int x = 0; x < patch.columns; ++x) {
                vf& entry = patch.logits[size_t(row) * patch.columns + x];
                uint16_t own = valid(patch, row, x);
                valid_[size_t(row) * patch.columns + x] = own;
                if (!own) {
                    entry = vf{};
                    continue;
                }
                entry = masked(expand(own), exp_of((here(patch, row, x) ? entry : vf{}) - top) * scale);
                total += entry;
            }
        }
        return total;
    }

    struct Bump {
        vf peak, x, y; // the largest probability and its place, counted from the corner of the patch
        vf mass, xx, yy, xy;
    };

    void replace(const Patch& patch, vf mass) {
        if (job_.components == 2) {
            replace_by<2>(patch, mass);
        } else {
            replace_by<0>(patch, mass);
        }
    }

    // N: the number of components where it is known when this is compiled, else 0.
    template <int N> void replace_by(const Patch& patch, vf mass) {
        const int components = N ? N : job_.components;
        Bump bumps[N ? N : MAX_COMPONENTS];
        find_peaks(patch, bumps);
        vi replaced = splat_i(-1);
        if (job_.threshold >= 0) {
            replaced = bumps[0].peak > splat(job_.threshold);
            if (!any(replaced & expand(patch.lanes))) return;
        }
        if (job_.fixed_width) {
            prepare_fixed(bumps);
        } else {
            prepare_moments<N>(patch, bumps);
        }
        vf total = vf{};
        for (int row = 0; row < patch.rows; ++row) {
            for (int x = 0; x < patch.columns; ++x) {
                size_t key = size_t(row) * patch.columns + x;
                if (!valid_[key]) continue;
                vf sum = vf{};
                for (int k = 0; k < components; ++k) {
                    const Bump& bump = bumps[k];
                    vf dx = float(x) - bump.x, dy = float(row) - bump.y;
                    vf exponent = dx * (bump.xx * dx + bump.xy * dy) + bump.yy * (dy * dy);
                    sum += bump.mass * exp_of(vmin(vmax(exponent, splat(LOWEST_EXPONENT)), vf{}));
                }
                sum = masked(expand(valid_[key]), sum);
                fitted_[key] = sum;
                total += sum;
            }
        }
        vf scale = job_.fixed_width ? splat(1) : 1.0f / vmax(total, splat(FLT_MIN));
        if (job_.keep_mass) scale *= mass;
        for (size_t key = 0; key < size_t(patch.rows) * patch.columns; ++key)
            if (valid_[key]) patch.logits[key] = blend(replaced, fitted_[key] * scale, patch.logits[key]);
    }

    // The largest probabilities of each lane's square, of equal ones the first; cells that take no part count as 0.
    void find_peaks(const Patch& patch, Bump* bumps) const {
        for (int k = 0; k < job_.components; ++k) bumps[k].peak = splat(-1), bumps[k].x = bumps[k].y = vf{};
        for (int row = 0; row < patch.rows; ++row) {
            for (int x = 0; x < patch.columns; ++x) {
                size_t at = size_t(row) * patch.columns + x;
                vf value = blend(expand(patch.window->square[at]), patch.logits[at], splat(-2));
                if (!any(value > bumps[job_.components - 1].peak)) continue;
                vf place_x = splat(float(x)), place_y = splat(float(row));
                vi better = vi{};
                for (int k = 0; k < job_.components; ++k) { // from its place on, all move down by one
                    Bump& bump = bumps[k];
                    better |= value > bump.peak;
                    vf old = bump.peak, old_x = bump.x, old_y = bump.y;
                    bump.peak = blend(better, value, old);
                    bump.x = blend(better, place_x, old_x), bump.y = blend(better, place_y, old_y);
                    value = blend(better, old, value);
                    place_x = blend(better, old_x, place_x), place_y = blend(better, old_y, place_y);
                }
            }
        }
    }

    // Coefficients of the exponent, and the peak of each bump as its mass.
    void prepare_fixed(Bump* bumps) const {
        vf sum = vf{};
        for (int k = 0; k < job_.components; ++k) {
            bumps[k].mass = exp_of(bumps[k].peak - bumps[0].peak);
            sum += bumps[k].mass;
        }
        const float factor = -4.0f * 0.693147181f / (job_.width_of_bump * job_.width_of_bump);
        for (int k = 0; k < job_.components; ++k) {
            bumps[k].mass /= sum;
            bumps[k].xx = bumps[k].yy = splat(factor), bumps[k].xy = vf{};
        }
    }

    template <int N> void prepare_moments(const Patch& patch, Bump* bumps) {
        const int components = N ? N : job_.components;
        constexpr int ROOM = N ? N : MAX_COMPONENTS;
        vf mass[ROOM], xx[ROOM], yy[ROOM], xy[ROOM];
        for (int k = 0; k < components; ++k) mass[k] = xx[k] = yy[k] = xy[k] = vf{};
        for (int row = 0; row < patch.rows; ++row) {
            for (int x = 0; x < patch.columns; ++x) {
                size_t key = size_t(row) * patch.columns + x;
                if (!valid_[key]) continue;
                vf weight = patch.logits[key];
                vf best = splat(INF), near_x = vf{}, near_y = vf{};
                vi owner = vi{};
                for (int k = 0; k < components; ++k) { // the first, more probable mean keeps a tie
                    vf dx = float(x) - bumps[k].x, dy = float(row) - bumps[k].y, distance = dx * dx + dy * dy;
                    vi closer = distance < best;
                    best = blend(closer, distance, best);
                    near_x = blend(closer, dx, near_x), near_y = blend(closer, dy, near_y);
                    owner = (closer & k) | (owner & ~closer);
                }
                vf wx = weight * near_x, wy = weight * near_y;
                for (int k = 0; k < components; ++k) {
                    vi own = owner == splat_i(k);
                    mass[k] += masked(own, weight);
                    xx[k] += masked(own, wx * near_x);
                    yy[k] += masked(own, wy * near_y);
                    xy[k] += masked(own, wx * near_y);
                }
            }
        }
        const vf floor = splat(job_.variance_floor);
        for (int k = 0; k < components; ++k) {
            vi empty = mass[k] <= vf{};
            vf safe = vmax(mass[k], splat(FLT_MIN));
            vf var_x = vmax(blend(empty, floor, xx[k] / safe + floor), floor);
            vf var_y = vmax(blend(empty, floor, yy[k] / safe + floor), floor);
            vf cov = blend(empty, vf{}, xy[k] / safe);
            vf det = vmax(var_x * var_y - cov * cov, floor * floor);
            bumps[k].xx = -0.5f * var_y / det, bumps[k].yy = -0.5f * var_x / det, bumps[k].xy = cov / det;
            for (int lane = 0; lane < LANES; ++lane)
                bumps[k].mass[lane] = mass[k][lane] / (6.28318531f * std::sqrt(det[lane]));
        }
    }

  public:
    ~Band() {
        for (auto* own : windows_) delete own;
    }

  private:
    const MmliirJob& job_;
    const int start_, stop_, across_, tiles_;
    const size_t cells_;
    int panel_;  // cells
    size_t row_; // floats of a packed row
    size_t packed_size_ = 0, logits_size_ = 0, boxed_size_ = 0, fitted_size_ = 0;
    int packed_first_ = 0;
    bool finite_ = true;
    std::vector<Window*> windows_;
    std::vector<uint16_t> lanes_; // of each tile: which lie in the frame
    Buffer<float> queries_, packed_;
    Buffer<vf> logits_, boxed_;
    int radius_ = 0, spare_[2] = {0, 0}; // of the displaced reference at work; cells beyond the window on each side
    float stretch_[2] = {0, 0};           // how far its places lie apart, less 1
    bool aligned_ = false;                // each lane's window lies in the same place of the patch
    // Of the tile at work: in the frame and in the patch.
    Centres key_centres_, value_centres_, key_places_, value_places_;
    std::vector<Group> groups_;
    Window places_;                       // of the group at work
    Buffer<vf> shares_[2];
    Buffer<vf> fitted_;
    Buffer<uint16_t> valid_; // of a patch: the lanes for which each key takes part
    Buffer<Kept> kept_;
};

} // namespace

extern "C" {

// Label the query rows start..stop (start a multiple of 4) of the frame.
int mmliir_attend(const MmliirJob* job, int32_t start, int32_t stop) {
    try {
        return Band(*job, start, stop).run();
    } catch (const std::bad_alloc&) {
        return MMLIIR_NO_MEMORY;
    }
}

// One (K, cells) field -> the only channel of each cell with a value other than 0 (-1: none), and that value.
// -> 1, or 0 as soon as a cell has values in two channels.
int mmliir_single_labels(const float* values, int32_t channels, int64_t cells, int32_t* labels, float* scales) {
    for (int64_t n = 0; n < cells; ++n) labels[n] = -1, scales[n] = 0;
    for (int32_t k = 0; k < channels; ++k) {
        const float* own = values + k * cells;
        for (int64_t n = 0; n < cells; ++n) {
            if (own[n] == 0) continue;
            if (labels[n] >= 0) return 0;
            labels[n] = k, scales[n] = own[n];
        }
    }
    return 1;
}

// Bits of the vector registers that this was compiled for.
int mmliir_width() { return 32 * WIDTH; }
}
