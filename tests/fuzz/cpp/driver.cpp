//! \file driver.cpp
//! Mutation without clang: gives each target changed copies of its seeds, always the same ones.
//!
//!     driver TARGET MUTATIONS SEED SEED-FILE...
//!     driver TARGET - FILE...             each file once, as it is
//!
//! The input that runs is in the file `driver-TARGET.input` while it runs, and stays there when the
//! process dies of it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "targets.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::pair<char const*, fuzz::Target*> kTargets[] = {
    {"json", fuzz::json},       {"record", fuzz::record},   {"netpbm", fuzz::netpbm},
    {"picture", fuzz::picture}, {"prepare", fuzz::prepare}, {"classes", fuzz::classes},
    {"found", fuzz::found},     {"text", fuzz::text},       {"onnx", fuzz::onnx}};

Bytes contents(char const* path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) {
        std::fprintf(stderr, "driver: cannot read %s\n", path);
        std::exit(2);
    }
    return {std::istreambuf_iterator<char>(stream), {}};
}

class Mutator {
  public:
    explicit Mutator(unsigned seed) : engine_(seed) {}

    // Below `limit`; the standard's distributions differ between libraries, this does not.
    std::size_t below(std::size_t limit) { return limit == 0 ? 0 : engine_() % limit; }

    Bytes changed(std::vector<Bytes> const& seeds) {
        Bytes bytes = seeds[below(seeds.size())];
        for (std::size_t count = 1 + below(4); count > 0; --count) {
            change(bytes, seeds[below(seeds.size())]);
        }
        return bytes;
    }

  private:
    void change(Bytes& bytes, Bytes const& other) {
        static constexpr std::uint8_t kEdges[] = {0, 1, 0x7F, 0x80, 0xFF, '"', '\\', '9', '-', '{'};
        std::size_t const at = below(bytes.size() + 1);
        auto const place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
        std::size_t const length = std::min(below(16), bytes.size() - at);
        auto const end = place + static_cast<std::ptrdiff_t>(length);
        switch (below(6)) {
            case 0:  // one bit
                if (at < bytes.size()) {
                    bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1U << below(8)));
                }
                return;
            case 1:
                std::fill(place, end, kEdges[below(std::size(kEdges))]);
                return;
            case 2:
                bytes.erase(place, end);
                return;
            case 3: {  // a part of it once more
                Bytes const part(place, end);
                bytes.insert(place, part.begin(), part.end());
                return;
            }
            case 4:  // cut off
                bytes.resize(below(8) == 0 ? at : bytes.size());
                return;
            default: {  // a part of another seed
                std::size_t const from = below(other.size() + 1);
                std::size_t const most = std::min(below(64), other.size() - from);
                auto const first = other.begin() + static_cast<std::ptrdiff_t>(from);
                bytes.insert(place, first, first + static_cast<std::ptrdiff_t>(most));
            }
        }
    }

    std::mt19937 engine_;
};

void run(std::string const& name, fuzz::Target* target, Bytes const& bytes) {
    {
        std::ofstream stream("driver-" + name + ".input", std::ios::binary);
        stream.write(reinterpret_cast<char const*>(bytes.data()),
                     static_cast<std::streamsize>(bytes.size()));
    }
    // A copy of its very size, so that a read behind the end is seen.
    Bytes const exact(bytes);
    target(exact.data(), exact.size());
}

}  // namespace

int main(int count, char** words) {
    std::string const name = count > 1 ? words[1] : "";
    auto const* const entry =
        std::find_if(std::begin(kTargets), std::end(kTargets),
                     [&name](auto const& item) { return item.first == name; });
    if (entry == std::end(kTargets) || count < 4) {
        std::fprintf(stderr, "see driver.cpp\n");
        return 2;
    }
    bool const as_it_is = std::string(words[2]) == "-";
    std::vector<Bytes> seeds;
    for (int i = as_it_is ? 3 : 4; i < count; ++i) {
        seeds.push_back(contents(words[i]));
    }
    if (seeds.empty()) {
        std::fprintf(stderr, "driver: no inputs\n");
        return 2;
    }
    for (Bytes const& seed : seeds) {
        run(name, entry->second, seed);
    }
    Mutator mutator(static_cast<unsigned>(as_it_is ? 0 : std::strtoul(words[3], nullptr, 10)));
    unsigned long const mutations = as_it_is ? 0 : std::strtoul(words[2], nullptr, 10);
    for (unsigned long i = 0; i < mutations; ++i) {
        run(name, entry->second, mutator.changed(seeds));
    }
    std::printf("%s: %lu inputs\n", name.c_str(), mutations + seeds.size());
    return 0;
}
