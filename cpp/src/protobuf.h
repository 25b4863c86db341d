//! \file protobuf.h
//! Fields of a serialised protobuf message (https://protobuf.dev/programming-guides/encoding),
//! without building anything: values stay where they are in the bytes. By hand, so that the library
//! needs no protobuf; fuzzed with the other readers (tests/fuzz/cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace vim_deploy::protobuf {

//! Wire types: how a field is stored.
enum class Wire : unsigned { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };

struct Field {
    std::uint64_t number = 0;
    Wire wire = Wire::kVarint;
    std::uint64_t value = 0;  //!< of a varint
    std::string_view bytes;   //!< of the others
};

//! Takes a number off the front of `rest`; false when none ends there.
inline bool read_varint(std::string_view& rest, std::uint64_t& value) noexcept {
    // 64 bits, 7 in each byte.
    constexpr std::size_t kMostBytes = 10;
    value = 0;
    for (std::size_t i = 0; i < kMostBytes && i < rest.size(); ++i) {
        auto const byte = static_cast<unsigned char>(rest[i]);
        value |= static_cast<std::uint64_t>(byte & 0x7FU) << (7 * i);
        if (byte < 0x80U) {
            rest.remove_prefix(i + 1);
            return true;
        }
    }
    return false;
}

//! Goes through the fields of one message in their order.
class Fields {
  public:
    explicit Fields(std::string_view message) noexcept : rest_(message) {}

    //! The next field; false at the end, and where the bytes are no fields (`flaw`).
    bool next(Field& field) noexcept {
        std::uint64_t tag = 0;
        if (rest_.empty() || !varint(tag)) {
            return false;
        }
        field = {tag >> 3U, static_cast<Wire>(tag & 7U), 0, {}};
        std::uint64_t size = 0;
        switch (field.wire) {
            case Wire::kVarint:
                return named(field) && varint(field.value);
            case Wire::kLength:
                return named(field) && varint(size) && take(size, field.bytes);
            case Wire::kFixed64:
                return named(field) && take(8, field.bytes);
            case Wire::kFixed32:
                return named(field) && take(4, field.bytes);
        }
        return fail("it is no protobuf message, or is damaged");
    }

    //! What is wrong with the bytes; null when nothing is.
    char const* flaw() const noexcept { return flaw_; }

  private:
    bool fail(char const* flaw) noexcept {
        flaw_ = flaw;
        return false;
    }

    bool named(Field const& field) noexcept {
        return field.number != 0 || fail("it is no protobuf message, or is damaged");
    }

    bool varint(std::uint64_t& value) noexcept {
        return read_varint(rest_, value) || fail("it is cut off, or a number in it has no end");
    }

    bool take(std::uint64_t size, std::string_view& bytes) noexcept {
        if (size > rest_.size()) {
            return fail("it is cut off, or a length in it is wrong");
        }
        bytes = rest_.substr(0, static_cast<std::size_t>(size));
        rest_.remove_prefix(bytes.size());
        return true;
    }

    std::string_view rest_;
    char const* flaw_ = nullptr;
};

}  // namespace vim_deploy::protobuf
