//! \file onnx_rules.cpp
#include "onnx_rules.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <set>
#include <string_view>
#include <system_error>

#include "file.h"

namespace vim_deploy {
namespace {

constexpr std::size_t kMaxAxes = 64;
constexpr std::int64_t kMaxSize = 2'147'483'647;
constexpr std::uint64_t kMaxElements = std::uint64_t{1} << 40U;
constexpr std::size_t kMaxDigits = 18;
constexpr std::uint64_t kMaxNodes = 1'000'000;
// Tensors may share a piece of a file, as tied weights do; a file that is read often is a bomb.
constexpr std::uint64_t kMostShared = 4;

// Bits of an element, by ONNX's number of its type; 0 for what is not known.
constexpr unsigned kBits[] = {0,  32,  8,  8, 16, 16, 32, 64, 8, 8, 16, 64, 32, 64,
                              64, 128, 16, 8, 8,  8,  8,  4,  4, 4, 8,  2,  2};

// Keys of ONNX's IR specification; `basepath` is what onnx adds in memory.
bool is_known_key(std::string const& key) {
    return key == "location" || key == "offset" || key == "length" || key == "checksum" ||
           key == "basepath";
}

std::string entry_of(StoredTensor const& tensor, char const* key) {
    auto const found = tensor.entries.find(key);
    return found == tensor.entries.end() ? std::string() : found->second;
}

bool number_of(std::string const& text, std::uint64_t& value) {
    bool const digits = !text.empty() && text.size() <= kMaxDigits &&
                        std::all_of(text.begin(), text.end(),
                                    [](char c) { return c >= '0' && c <= '9'; });
    return digits && std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc();
}

// The parts of a path between its slashes; empty ones and `.` stand for nothing.
std::vector<std::string> parts_of(std::string_view location) {
    std::vector<std::string> parts;
    while (!location.empty()) {
        std::size_t const end = std::min(location.find('/'), location.size());
        std::string_view const part = location.substr(0, end);
        if (!part.empty() && part != ".") {
            parts.emplace_back(part);
        }
        location.remove_prefix(std::min(end + 1, location.size()));
    }
    return parts;
}

// A path inside the model's own folder. ONNX Runtime takes one name for an address in memory.
bool is_inside(std::string const& location) {
    auto const parts = parts_of(location);
    return !parts.empty() && location[0] != '/' &&
           location.find_first_of(std::string("\\:\0", 3)) == std::string::npos &&
           std::find(parts.begin(), parts.end(), "..") == parts.end() &&
           location.find("_ORT_MEM_ADDR_") == std::string::npos;
}

// Bytes of a regular file that is reached through no link; what is wrong otherwise.
std::string size_of_file(std::string const& folder, std::string const& location,
                         std::uint64_t& size) {
    std::string place = folder.empty() ? "." : folder;
    struct stat found {};
    for (std::string const& part : parts_of(location)) {
        place += (place.back() == '/' ? "" : "/") + part;
        if (::lstat(place.c_str(), &found) != 0) {
            return std::error_code(errno, std::generic_category()).message();
        }
        if (S_ISLNK(found.st_mode)) {
            return "it is a link";
        }
    }
    if (!S_ISREG(found.st_mode)) {
        return "it is not a regular file";
    }
    size = static_cast<std::uint64_t>(found.st_size);
    return "";
}

// Nodes that each function stands for, in the order in which they are known.
class Expansion {
  public:
    explicit Expansion(OnnxFile const& file) : functions_(file.functions) {}

    // Of these calls; what is wrong with the functions ends up in `flaw`.
    std::uint64_t nodes(Calls const& calls) {
        std::uint64_t sum = 0;
        for (auto const& [called, count] : calls) {
            std::uint64_t const each = nodes_of(called);
            // Both are at most kMaxNodes, so the product fits.
            sum = std::min(sum + each * std::min(count, kMaxNodes), kMaxNodes + 1);
        }
        return sum;
    }

    std::string flaw;

  private:
    std::uint64_t nodes_of(Operator const& called) {
        auto const function = functions_.find(called);
        if (function == functions_.end() || !flaw.empty()) {
            return 1;
        }
        auto const known = known_.find(called);
        if (known != known_.end()) {
            return known->second;
        }
        // Deeper than any file calls: the stack is bounded by it.
        constexpr std::size_t kMaxCalls = 1000;
        if (!open_.insert(called).second || open_.size() > kMaxCalls) {
            flaw = "its function " + called.second + " calls itself, or calls lie too deep";
            return 1;
        }
        std::uint64_t const sum = nodes(function->second);
        open_.erase(called);
        if (sum > kMaxNodes && flaw.empty()) {
            flaw = "its function " + called.second + " stands for more than " +
                   std::to_string(kMaxNodes) + " nodes";
        }
        return known_[called] = sum;
    }

    std::map<Operator, Calls> const& functions_;
    std::map<Operator, std::uint64_t> known_;
    std::set<Operator> open_;
};

}  // namespace

std::string flaw_of_values(std::string const& place, std::vector<OnnxValue> const& values) {
    std::set<std::string> names;
    for (OnnxValue const& value : values) {
        if (value.name.empty() || !names.insert(value.name).second) {
            return "its " + place + "s have no names of their own";
        }
        if (value.element == 0 || value.element >= std::size(kBits)) {
            return "its " + place + " " + value.name + " is not a tensor of a known type";
        }
        if (place == "input" && value.shape.empty()) {
            return "its input " + value.name + " has no sizes, not even a batch";
        }
        std::uint64_t elements = 1;
        for (std::int64_t const size : value.shape) {
            elements *= static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1));
            if (elements > kMaxElements) {
                return "its " + place + " " + value.name + " has the sizes " + text_of(value.shape);
            }
        }
    }
    return "";
}

std::string flaw_of_tensor(StoredTensor const& tensor, std::optional<OutsideTensor>& found) {
    std::string const what = "its tensor " + tensor.name;
    unsigned const bits = tensor.type < std::size(kBits) ? kBits[tensor.type] : 0;
    if (bits == 0) {
        return what + " is of no known type";
    }
    std::uint64_t elements = 1;
    bool too_large = tensor.sizes.size() > kMaxAxes;
    for (std::int64_t const size : tensor.sizes) {
        too_large = too_large || size < 0 || size > kMaxSize;
        elements = too_large ? 0 : elements * static_cast<std::uint64_t>(size);
        too_large = too_large || elements > kMaxElements;
    }
    if (too_large) {
        return what + " has sizes that no weights have";
    }
    if (!tensor.outside) {
        return "";
    }
    OutsideTensor outside;
    outside.name = tensor.name;
    outside.location = entry_of(tensor, "location");
    outside.needed = (elements * bits + 7) / 8;
    if (!is_inside(outside.location)) {
        return what + " lies outside the model's folder: " + outside.location;
    }
    for (auto const& [key, value] : tensor.entries) {
        std::uint64_t number = 0;
        if (!is_known_key(key)) {
            return what + " says " + key + " of the file it lies in";
        }
        if ((key == "offset" || key == "length") && !number_of(value, number)) {
            return what + " has the " + key + " " + value.substr(0, 40);
        }
        if (key == "offset") {
            outside.offset = number;
        } else if (key == "length") {
            outside.length = number;
        }
    }
    found = std::move(outside);
    return "";
}

std::string flaw_of_functions(OnnxFile const& file) {
    Expansion expansion(file);
    for (auto const& entry : file.functions) {
        static_cast<void>(expansion.nodes({{entry.first, 1}}));
    }
    std::uint64_t const all = expansion.nodes(file.calls);
    if (expansion.flaw.empty() && all > kMaxNodes) {
        return "with its functions it stands for more than " + std::to_string(kMaxNodes) + " nodes";
    }
    return expansion.flaw;
}

Status check_outside(OnnxFile const& file, std::string const& path) {
    std::map<std::string, std::uint64_t> sizes;
    std::uint64_t wanted = 0;
    for (OutsideTensor const& tensor : file.outside) {
        auto const [entry, is_new] = sizes.emplace(tensor.location, 0);
        std::string const wrong =
            is_new ? size_of_file(folder_of(path), tensor.location, entry->second) : "";
        if (!wrong.empty()) {
            return unreadable_onnx(path, "its weights in " + tensor.location + ": " + wrong);
        }
        std::uint64_t const size = entry->second;
        std::uint64_t const rest = size > tensor.offset ? size - tensor.offset : 0;
        std::uint64_t const length = tensor.length.value_or(rest);
        if (length != tensor.needed || length > rest) {
            return unreadable_onnx(path, "the " + std::to_string(size) + " bytes in " +
                                             tensor.location + " do not hold the tensor " +
                                             tensor.name + ": its shape needs " +
                                             std::to_string(tensor.needed) + " from " +
                                             std::to_string(tensor.offset));
        }
        wanted += length;
    }
    std::uint64_t held = 0;
    for (auto const& entry : sizes) {
        held += entry.second;
    }
    if (wanted > kMostShared * held) {
        return unreadable_onnx(path, "its tensors ask for " + std::to_string(wanted) +
                                         " bytes of files that have " + std::to_string(held));
    }
    return Done{};
}

}  // namespace vim_deploy
