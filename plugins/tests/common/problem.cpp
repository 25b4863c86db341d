//! See problem.h.
#include "problem.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "small_float.h"

namespace vim_tests {
namespace {

std::size_t size_of(DataType type) {
    return type == DataType::kFloat32 ? 4 : 2;
}

//! Half a unit in the last place of a value of the type, relative; fp32 is the arithmetic's own.
double roundoff(DataType type) {
    return type == DataType::kFloat32   ? 0.0
           : type == DataType::kFloat16 ? std::ldexp(1.0, -11)
                                        : std::ldexp(1.0, -8);
}

float rounded(float value, DataType type) {
    switch (type) {
        case DataType::kFloat16:
            return vim_shim::half_to(vim_shim::half_from(value));
        case DataType::kBFloat16:
            return vim_shim::bfloat_to(vim_shim::bfloat_from(value));
        default:
            return value;
    }
}

std::vector<unsigned char> encoded(const std::vector<float>& values, DataType type) {
    std::vector<unsigned char> bytes(values.size() * size_of(type));
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (type == DataType::kFloat32) {
            std::memcpy(bytes.data() + 4 * i, &values[i], 4);
        } else {
            const std::uint16_t bits = type == DataType::kFloat16
                                           ? vim_shim::half_from(values[i])
                                           : vim_shim::bfloat_from(values[i]);
            std::memcpy(bytes.data() + 2 * i, &bits, 2);
        }
    }
    return bytes;
}

class Random {
  public:
    explicit Random(std::uint32_t seed) : engine_(seed) {}
    std::vector<float> normal(std::size_t count, float sigma, DataType type) {
        std::normal_distribution<float> draw(0.0F, sigma);
        std::vector<float> out(count);
        std::generate(out.begin(), out.end(), [&] { return rounded(draw(engine_), type); });
        return out;
    }
    float uniform(float low, float high) {
        return std::uniform_real_distribution<float>(low, high)(engine_);
    }
    //! Between a half and three halves.
    std::vector<float> positive(std::size_t count, DataType type) {
        std::vector<float> out(count);
        std::generate(out.begin(), out.end(), [&] { return rounded(uniform(0.5F, 1.5F), type); });
        return out;
    }

  private:
    std::mt19937 engine_;
};

double softplus64(double x) {
    return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
}

double silu64(double x) {
    return x / (1.0 + std::exp(-x));
}

//! dt before the bias, of one direction, token row and channel.
double dt64(const Problem& p, std::size_t direction, std::size_t row, std::size_t channel) {
    const std::size_t rows = std::size_t(p.spec.batch) * p.spec.length;
    const std::size_t channels = p.spec.channels;
    const std::size_t rank = p.spec.rank;
    if (rank == 0) {
        return p.dt[(direction * rows + row) * channels + channel];
    }
    double sum = 0.0;
    for (std::size_t j = 0; j < rank; ++j) {
        sum += double(p.dt[(direction * channels + channel) * rank + j]) *
               p.bc[(direction * rows + row) * p.bc_columns + p.dt_off + j];
    }
    return sum;
}

//! Adds one direction's scan to `y`; `index` selects its tensors.
void add_direction(const Problem& p, std::size_t index, bool reverse, std::vector<double>& y) {
    const Spec& s = p.spec;
    const std::size_t length = s.length;
    const std::size_t channels = s.channels;
    const std::size_t rows = s.batch * length;
    std::vector<double> state(s.states);
    for (int b = 0; b < s.batch; ++b) {
        for (std::size_t d = 0; d < channels; ++d) {
            std::fill(state.begin(), state.end(), 0.0);
            for (std::size_t i = 0; i < length; ++i) {
                const std::size_t row = b * length + (reverse ? length - 1 - i : i);
                const double u = p.u[(index * rows + row) * channels + d];
                double delta = dt64(p, index, row, d) + p.bias[index * channels + d];
                delta = s.softplus ? softplus64(delta) : delta;
                const float* bc = p.bc.data() + (index * rows + row) * p.bc_columns;
                double out = double(p.skip[index * channels + d]) * u;
                for (int n = 0; n < s.states; ++n) {
                    const double a = p.A[(index * s.states + n) * channels + d];
                    state[n] = std::exp(delta * a) * state[n] + delta * bc[p.b_off + n] * u;
                    out += bc[p.c_off + n] * state[n];
                }
                y[row * channels + d] += out;
            }
        }
    }
}

std::vector<double> conv_reference(const Problem& p) {
    const Spec& s = p.spec;
    const std::size_t channels = s.channels;
    std::vector<double> out(std::size_t(2) * s.batch * s.length * channels);
    std::size_t at = 0;
    for (int direction = 0; direction < 2; ++direction) {
        for (int b = 0; b < s.batch; ++b) {
            for (int l = 0; l < s.length; ++l) {
                for (std::size_t d = 0; d < channels; ++d) {
                    double sum = p.bias[direction * channels + d];
                    for (int k = 0; k < s.width; ++k) {
                        const int shift = s.width - 1 - k;
                        const int source = direction == 0 ? l - shift : l + shift;
                        if (source >= 0 && source < s.length) {
                            const std::size_t row = std::size_t(b) * s.length + source;
                            sum += double(p.w[(direction * s.width + k) * channels + d]) *
                                   p.z[row * p.z_columns + p.z_off + d];
                        }
                    }
                    out[at++] = silu64(sum);
                }
            }
        }
    }
    return out;
}

//! Makes every sum of the scan one of positive terms, and its states slow (Spec::memory).
void remember(Problem& p, Random& random) {
    const Spec& s = p.spec;
    p.u = random.positive(p.u.size(), s.type);
    p.skip = random.positive(p.skip.size(), DataType::kFloat32);
    // The columns that dt is made of keep both signs, as dt itself does.
    for (std::size_t first = 0; first < p.bc.size(); first += p.bc_columns) {
        for (const int offset : {p.b_off, p.c_off}) {
            const std::vector<float> row = random.positive(s.states, s.type);
            std::copy(row.begin(), row.end(), p.bc.begin() + std::ptrdiff_t(first) + offset);
        }
    }
    const std::size_t channels = s.channels;
    for (std::size_t i = 0; i < p.A.size(); ++i) {
        const float bias = p.bias[i / channels / s.states * channels + i % channels];
        const float step = s.softplus ? std::log1p(std::exp(bias)) : bias;
        p.A[i] = -random.uniform(0.8F, 1.25F) / (step * float(s.memory));
    }
}

}  // namespace

Problem make_problem(const Spec& s, std::uint32_t seed) {
    Random random(seed);
    Problem p;
    p.spec = s;
    const std::size_t directions = s.op == Op::kScan ? 1 : 2;
    const std::size_t rows = std::size_t(s.batch) * s.length;
    const std::size_t channels = s.channels;
    p.z_off = s.op == Op::kConv ? s.margin : s.channels + s.margin;
    p.z_columns = 2 * s.channels + 2 * s.margin;
    p.z = random.normal(rows * p.z_columns, 1.0F, s.type);
    if (s.op == Op::kConv) {
        p.w = random.normal(2 * s.width * channels, 0.5F, DataType::kFloat32);
        p.bias = random.normal(2 * channels, 0.2F, DataType::kFloat32);
        return p;
    }
    // As in the official rows: [dt | B | C], here with unused columns around each.
    p.dt_off = s.before + s.margin;
    p.b_off = p.dt_off + s.rank + s.margin;
    p.c_off = p.b_off + s.states + s.margin;
    p.bc_columns = p.c_off + s.states + s.margin;
    p.u = random.normal(directions * rows * channels, 1.0F, s.type);
    p.bc = random.normal(directions * rows * p.bc_columns, 1.0F, s.type);
    p.skip = random.normal(directions * channels, 1.0F, DataType::kFloat32);
    if (s.rank > 0) {
        const float sigma = 0.5F / std::sqrt(float(s.rank));
        p.dt = random.normal(directions * channels * s.rank, sigma, s.type);
    } else {
        p.dt = random.normal(directions * rows * channels, 0.5F, s.type);
    }
    // Mamba's initialisation: softplus(bias) log-uniform in [1e-3, 1e-1], A_n about -(n + 1).
    for (std::size_t i = 0; i < directions * channels; ++i) {
        const float delta = std::pow(10.0F, random.uniform(-3.0F, -1.0F));
        p.bias.push_back(s.softplus ? std::log(std::expm1(delta)) : delta);
    }
    if (!s.softplus) {
        // Steps are then taken as they are and must stay positive for the scan to be stable.
        for (float& value : p.dt) {
            value = rounded(std::abs(value) * 0.1F, s.type);
        }
    }
    for (std::size_t i = 0; i < directions * s.states * channels; ++i) {
        const float n = float(i / channels % s.states);
        p.A.push_back(-(n + 1.0F) * random.uniform(0.5F, 1.5F));
    }
    if (s.memory > 0) {
        remember(p, random);
    }
    return p;
}

std::vector<double> reference(const Problem& p) {
    const Spec& s = p.spec;
    if (s.op == Op::kConv) {
        return conv_reference(p);
    }
    const std::size_t rows = std::size_t(s.batch) * s.length;
    const std::size_t channels = s.channels;
    std::vector<double> y(rows * channels, 0.0);
    const bool both = s.op == Op::kBiScan;
    add_direction(p, 0, both ? false : s.reverse, y);
    if (both) {
        add_direction(p, 1, true, y);
    }
    for (std::size_t row = 0; row < rows; ++row) {
        for (std::size_t d = 0; d < channels; ++d) {
            double& value = y[row * channels + d];
            value *= both ? double(s.scale) : 1.0;
            if (both || s.gate) {
                value *= silu64(p.z[row * p.z_columns + p.z_off + d]);
            }
        }
    }
    return y;
}

Bound::Bound(const Problem& p, Memory& memory) : problem_(p), memory_(memory) {
    const Spec& s = p.spec;
    const auto typed = [&](const std::vector<float>& values) {
        const auto bytes = encoded(values, s.type);
        return memory.place(bytes.data(), bytes.size());
    };
    const auto floats = [&](const std::vector<float>& values) {
        return static_cast<float*>(memory.place(values.data(), 4 * values.size()));
    };
    output_elements_ = std::size_t(s.batch) * s.length * s.channels * (s.op == Op::kConv ? 2 : 1);
    output_ = memory.blank(output_bytes());
    void* z = typed(p.z);
    float* bias = floats(p.bias);
    if (s.op == Op::kConv) {
        conv_.xz = z;
        conv_.w = floats(p.w);
        conv_.bias = bias;
        conv_.u2 = output_;
        conv_.batch = s.batch;
        conv_.length = s.length;
        conv_.channels = s.channels;
        conv_.width = s.width;
        conv_.xz_columns = p.z_columns;
        conv_.x_off = p.z_off;
        conv_.type = s.type;
        return;
    }
    const auto fill = [&](auto& q) {
        q.dt = typed(p.dt);
        q.A = floats(p.A);
        q.d_skip = floats(p.skip);
        q.dt_bias = bias;
        q.y = output_;
        q.batch = s.batch;
        q.length = s.length;
        q.channels = s.channels;
        q.states = s.states;
        q.b_off = p.b_off;
        q.c_off = p.c_off;
        q.z_off = p.z_off;
        q.delta_softplus = s.softplus ? 1 : 0;
        q.type = s.type;
    };
    if (s.op == Op::kScan) {
        fill(scan_);
        scan_.u = typed(p.u);
        scan_.bc = typed(p.bc);
        scan_.z = s.gate ? z : nullptr;
        scan_.bc_columns = p.bc_columns;
        scan_.z_columns = p.z_columns;
        scan_.reverse = s.reverse ? 1 : 0;
        scan_.has_z = s.gate ? 1 : 0;
    } else {
        fill(bi_);
        bi_.u2 = typed(p.u);
        bi_.xdbl = typed(p.bc);
        bi_.xz = z;
        bi_.xdbl_columns = p.bc_columns;
        bi_.xz_columns = p.z_columns;
        bi_.rank = s.rank;
        bi_.dt_off = p.dt_off;
        bi_.low_rank = s.rank > 0 ? 1 : 0;
        bi_.scale = s.scale;
    }
}

std::size_t Bound::output_bytes() const {
    return output_elements_ * size_of(problem_.spec.type);
}

std::vector<double> Bound::output() const {
    std::vector<unsigned char> bytes(output_bytes());
    memory_.fetch(bytes.data(), output_, bytes.size());
    std::vector<double> out(output_elements_);
    for (std::size_t i = 0; i < out.size(); ++i) {
        float value = 0.0F;
        if (problem_.spec.type == DataType::kFloat32) {
            std::memcpy(&value, bytes.data() + 4 * i, 4);
        } else {
            std::uint16_t bits = 0;
            std::memcpy(&bits, bytes.data() + 2 * i, 2);
            value = problem_.spec.type == DataType::kFloat16 ? vim_shim::half_to(bits)
                                                             : vim_shim::bfloat_to(bits);
        }
        out[i] = value;
    }
    return out;
}

double relative_l2(const std::vector<double>& got, const std::vector<double>& want) {
    double error = 0.0;
    double norm = 0.0;
    for (std::size_t i = 0; i < want.size(); ++i) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return std::sqrt(error / norm);
}

double tolerance(DataType type) {
    return kArithmetic + roundoff(type);
}

double gpu_tolerance(const Spec& spec) {
    const double slow = kArithmetic + spec.memory * kGpuPowerError;
    return std::max(kGpuArithmetic, slow) + roundoff(spec.type);
}

std::string name_of(Tactic tactic) {
    static const char* const names[] = {"default",   "generic", "serial",   "chunked4", "chunked8",
                                        "chunked16", "vector",  "cluster4", "cluster8", "serial1"};
    return names[static_cast<int>(tactic)];
}

std::string name_of(DataType type) {
    return type == DataType::kFloat32 ? "fp32" : type == DataType::kFloat16 ? "fp16" : "bf16";
}

std::string describe(const Spec& s) {
    const char* op = s.op == Op::kScan ? "scan" : s.op == Op::kConv ? "conv" : "bi_scan";
    return std::string(op) + " " + name_of(s.type) + " B=" + std::to_string(s.batch) +
           " L=" + std::to_string(s.length) + " D=" + std::to_string(s.channels) +
           (s.op == Op::kConv ? " W=" + std::to_string(s.width)
                              : " N=" + std::to_string(s.states)) +
           (s.reverse ? " reverse" : "") + (s.gate ? "" : " ungated") +
           (s.softplus ? "" : " no-softplus") + (s.rank > 0 ? " r=" + std::to_string(s.rank) : "") +
           (s.margin > 0 ? " margin=" + std::to_string(s.margin) : "") +
           (s.before > 0 ? " before=" + std::to_string(s.before) : "") +
           (s.memory > 0 ? " memory=" + std::to_string(s.memory) : "");
}

}  // namespace vim_tests
