//! \file onnx_walk.cpp
#include "onnx_walk.h"

#include <algorithm>
#include <iterator>

#include "utf8.h"

namespace vim_deploy {
namespace {

// As in vim_deploy/artifact/onnx_file.py, which has the reasons.
constexpr std::size_t kMaxMessages = 500'000;
constexpr std::size_t kMaxFields = 2'000'000;
constexpr unsigned kMaxDepth = 64;
constexpr std::uint64_t kMaxNumberBytes = std::uint64_t{1} << 27U;

struct Child {
    Kind parent;
    std::uint64_t number;
    Kind kind;
};

// clang-format off
constexpr Child kChildren[] = {
    {Kind::kModel, 7, Kind::kGraph},         {Kind::kModel, 8, Kind::kOpset},
    {Kind::kModel, 14, Kind::kEntry},        {Kind::kModel, 20, Kind::kTraining},
    {Kind::kModel, 25, Kind::kFunction},     {Kind::kModel, 26, Kind::kLeaf},
    {Kind::kTraining, 1, Kind::kGraph},      {Kind::kTraining, 2, Kind::kGraph},
    {Kind::kTraining, 3, Kind::kEntry},      {Kind::kTraining, 4, Kind::kEntry},
    {Kind::kGraph, 1, Kind::kNode},          {Kind::kGraph, 5, Kind::kTensor},
    {Kind::kGraph, 11, Kind::kValue},        {Kind::kGraph, 12, Kind::kValue},
    {Kind::kGraph, 13, Kind::kValue},        {Kind::kGraph, 14, Kind::kAnnotation},
    {Kind::kGraph, 15, Kind::kSparse},       {Kind::kGraph, 16, Kind::kEntry},
    {Kind::kNode, 5, Kind::kAttribute},      {Kind::kNode, 9, Kind::kEntry},
    {Kind::kNode, 10, Kind::kLeaf},          {Kind::kAttribute, 5, Kind::kTensor},
    {Kind::kAttribute, 6, Kind::kGraph},     {Kind::kAttribute, 10, Kind::kTensor},
    {Kind::kAttribute, 11, Kind::kGraph},    {Kind::kAttribute, 14, Kind::kType},
    {Kind::kAttribute, 15, Kind::kType},     {Kind::kAttribute, 22, Kind::kSparse},
    {Kind::kAttribute, 23, Kind::kSparse},   {Kind::kTensor, 3, Kind::kLeaf},
    {Kind::kTensor, 13, Kind::kEntry},       {Kind::kTensor, 16, Kind::kEntry},
    {Kind::kSparse, 1, Kind::kTensor},       {Kind::kSparse, 2, Kind::kTensor},
    {Kind::kValue, 2, Kind::kType},          {Kind::kValue, 4, Kind::kEntry},
    {Kind::kType, 1, Kind::kTensorType},     {Kind::kType, 4, Kind::kHolder},
    {Kind::kType, 5, Kind::kHolder},         {Kind::kType, 7, Kind::kLeaf},
    {Kind::kType, 8, Kind::kTensorType},     {Kind::kType, 9, Kind::kHolder},
    {Kind::kTensorType, 2, Kind::kShape},    {Kind::kHolder, 1, Kind::kType},
    {Kind::kHolder, 2, Kind::kType},         {Kind::kShape, 1, Kind::kSize},
    {Kind::kFunction, 7, Kind::kNode},       {Kind::kFunction, 9, Kind::kOpset},
    {Kind::kFunction, 11, Kind::kAttribute}, {Kind::kFunction, 12, Kind::kValue},
    {Kind::kFunction, 14, Kind::kEntry},     {Kind::kAnnotation, 2, Kind::kEntry},
};
// clang-format on

// Lists of whole numbers, each of which takes at most 8 bytes in memory.
bool holds_numbers(Kind kind, std::uint64_t number) noexcept {
    return kind == Kind::kAttribute ? number == 8
                                    : kind == Kind::kTensor && (number == 1 || number == 5 ||
                                                                number == 7 || number == 11);
}

}  // namespace

Kind child_of(Kind parent, std::uint64_t number) noexcept {
    auto const* const found =
        std::find_if(std::begin(kChildren), std::end(kChildren), [&](Child const& child) {
            return child.parent == parent && child.number == number;
        });
    return found == std::end(kChildren) ? Kind::kNone : found->kind;
}

bool Walk::enter(unsigned depth) {
    if (++messages_ > kMaxMessages) {
        return fail("it has more than " + std::to_string(kMaxMessages) +
                    " parts, which no exporter writes");
    }
    return depth <= kMaxDepth ||
           fail("it is more than " + std::to_string(kMaxDepth) + " levels deep");
}

bool Walk::count_field(Kind kind, Field const& field) {
    if (++fields_ > kMaxFields) {
        return fail("it has more than " + std::to_string(kMaxFields) +
                    " fields, which no exporter writes");
    }
    if (field.wire != Wire::kLength || !holds_numbers(kind, field.number)) {
        return true;
    }
    // Each number ends with a byte below 128.
    auto const ends = std::count_if(field.bytes.begin(), field.bytes.end(), [](char byte) {
        return static_cast<unsigned char>(byte) < 0x80U;
    });
    numbers_ += 8 * static_cast<std::uint64_t>(ends);
    return numbers_ <= kMaxNumberBytes + 2 * size_ ||
           fail("its numbers take " + std::to_string(numbers_) + " bytes in memory, too many");
}

bool Walk::text(Field const& field, std::string& to) {
    for (std::string_view rest = field.bytes; !rest.empty();) {
        std::size_t const length = utf8_length(rest);
        if (length == 0) {
            return fail("a text in it is no UTF-8");
        }
        rest.remove_prefix(length);
    }
    to = field.bytes;
    return true;
}

}  // namespace vim_deploy
