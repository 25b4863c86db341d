//! \file fake_plan.cpp
#include "fake_plan.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "fakes.h"

namespace fake_plan {
namespace {

std::atomic<std::int32_t> last_profile{-1};
std::atomic<std::int64_t> runs{0};

Dims parse_dims(std::string const& text) {
    Dims dims{};
    std::istringstream stream(text);
    std::string size;
    while (std::getline(stream, size, 'x')) {
        dims.d[dims.nbDims++] = std::atoll(size.c_str());
    }
    return dims;
}

DataType parse_type(std::string const& text) {
    if (text == "uint8") {
        return DataType::kUINT8;
    }
    return text == "int64" ? DataType::kINT64 : DataType::kFLOAT;
}

}  // namespace

Plan parse_plan(std::string const& text) {
    Plan plan;
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
        std::istringstream words(line);
        std::string kind;
        std::string a;
        std::string b;
        std::string c;
        words >> kind >> a;
        if (kind == "input" || kind == "output") {
            words >> b >> c;
            plan.tensors.push_back({a, parse_type(b), parse_dims(c), kind == "input"});
        } else if (kind == "profile") {
            words >> b >> c;
            plan.profiles.push_back({parse_dims(a), parse_dims(b), parse_dims(c)});
        } else if (kind == "scratch") {
            plan.scratch = std::atoll(a.c_str());
        } else if (kind == "plugins") {
            plan.plugins = true;
        } else if (kind == "embedded") {
            plan.embedded = true;
        } else if (kind == "fail") {
            std::getline(words, plan.fail[a]);
        }
    }
    return plan;
}

std::int64_t volume(Dims const& dims) {
    std::int64_t product = 1;
    for (int i = 0; i < dims.nbDims; ++i) {
        product *= dims.d[i];
    }
    return product;
}

std::size_t width_of(DataType type) {
    return type == DataType::kUINT8 ? 1 : type == DataType::kINT64 ? 8 : 4;
}

Dims sizes_for(Dims const& dims) {
    Dims sizes{};
    sizes.nbDims = 2;
    sizes.d[0] = dims.d[0];
    sizes.d[1] = 2;
    return sizes;
}

bool inside(Dims const& dims, std::vector<Dims> const& range) {
    bool good = dims.nbDims == range[0].nbDims;
    for (int i = 0; good && i < dims.nbDims; ++i) {
        good = dims.d[i] >= range[0].d[i] && dims.d[i] <= range[2].d[i];
    }
    return good;
}

float Run::element(std::int64_t i) const {
    void const* data = addresses.at(input.name);
    return input.type == DataType::kUINT8
               ? static_cast<float>(static_cast<std::uint8_t const*>(data)[i])
               : static_cast<float const*>(data)[i];
}

void Run::operator()() const {
    if (captured && std::memcmp(current.get(), &input.dims, sizeof(Dims)) != 0) {
        fake_fault("a graph runs while its context has another shape");
    }
    if (scratch_bytes > 0) {
        std::memset(scratch, 0x5A, static_cast<std::size_t>(scratch_bytes));
    }
    std::int64_t const batch = input.dims.d[0];
    std::int64_t const elements = volume(input.dims) / batch;
    for (Io const& output : outputs) {
        std::int64_t const columns = volume(output.dims) / batch;
        for (std::int64_t b = 0; b < batch; ++b) {
            for (std::int64_t k = 0; k < columns; ++k) {
                if (has_sizes) {
                    detect(output, b, k, b * columns + k);
                } else {
                    write(output, b, k, b * columns + k, elements);
                }
            }
        }
    }
    last_profile = profile;
    ++runs;
}

// Two things in every picture that has a size; tests/support/cpp.py has the same numbers.
void Run::detect(Io const& output, std::int64_t item, std::int64_t column, std::int64_t at) const {
    auto const* size = static_cast<std::int64_t const*>(addresses.at("size")) + 2 * item;
    std::int64_t const found = size[0] > 0 && size[1] > 0 ? 2 : 0;
    void* data = addresses.at(output.name);
    if (output.name == "count") {
        static_cast<std::int64_t*>(data)[at] = found;
        return;
    }
    std::int64_t cells = 1;
    for (int axis = 2; axis < output.dims.nbDims; ++axis) {
        cells *= output.dims.d[axis];
    }
    std::int64_t const row = column / cells;
    std::int64_t const cell = column % cells;
    float value = 0;
    if (row < found && output.name == "boxes") {
        // From an eighth of a side to a half or, in the other row, to the end.
        float const share = cell < 2 ? 0.125F : 0.5F * static_cast<float>(row + 1);
        value = share * static_cast<float>(size[cell % 2 == 0 ? 1 : 0]);
    } else if (row < found && output.name == "masks") {
        value = static_cast<float>((cell * 7 + row * 3) % 16) / 16.0F;
    } else if (row < found) {
        value = output.name == "scores" ? 0.75F - 0.25F * static_cast<float>(row)
                                        : static_cast<float>(row + 1);
    }
    char const* const overflow = std::getenv("FAKE_TENSORRT_OUTPUT");
    if (output.type == DataType::kINT64) {
        static_cast<std::int64_t*>(data)[at] = static_cast<std::int64_t>(value);
    } else {
        static_cast<float*>(data)[at] = overflow != nullptr && item == 0 && column == 1
                                            ? std::strtof(overflow, nullptr)
                                            : value;
    }
}

// Sums for floats; for int64 a class number that depends on item and column.
void Run::write(Io const& output, std::int64_t item, std::int64_t column, std::int64_t at,
                std::int64_t elements) const {
    void* data = addresses.at(output.name);
    if (output.type == DataType::kINT64) {
        static_cast<std::int64_t*>(data)[at] = (item + 3 * column) % 10;
        return;
    }
    float sum = 0;
    for (std::int64_t i = 0; i < elements; ++i) {
        sum += element(item * elements + i) *
               fake_weight(static_cast<std::size_t>(i), static_cast<std::size_t>(column));
    }
    // `nan` or `inf` for the first item's second column: what an overflow leaves.
    char const* const overflow = std::getenv("FAKE_TENSORRT_OUTPUT");
    static_cast<float*>(data)[at] =
        overflow != nullptr && item == 0 && column == 1 ? std::strtof(overflow, nullptr) : sum;
}

}  // namespace fake_plan

std::int32_t fake_last_profile() {
    return fake_plan::last_profile;
}

std::int64_t fake_runs() {
    return fake_plan::runs;
}
