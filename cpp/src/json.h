//! \file json.h
//! A strict JSON reader (RFC 8259) for files that are not trusted: bounded in depth and number of
//! values, no duplicate keys, text must be UTF-8, nothing may follow the value. By hand, so that
//! the library needs TensorRT and CUDA alone; fuzzed with the other readers (tests/fuzz/cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vim_deploy/result.h"

namespace vim_deploy {

//! What a document may take. A record has a few hundred values, its labels apart, at depth 6.
struct JsonLimits {
    std::size_t depth = 32;
    std::size_t values = 1'000'000;
    std::size_t bytes = std::size_t{64} << 20U;
};

//! One value of a document.
class Json {
  public:
    enum class Kind { kNull, kBool, kNumber, kText, kArray, kObject };
    using Member = std::pair<std::string, Json>;

    //! Errors carry no code: `message` names the place, as `line 3, column 7: ...`.
    static Result<Json> parse(std::string_view text, JsonLimits const& limits = {});

    Kind kind() const noexcept { return kind_; }
    //! The name of a kind, for messages.
    static char const* name(Kind kind) noexcept;

    bool boolean() const noexcept { return boolean_; }
    //! A text's characters, as UTF-8; a number's digits as they stand in the document.
    std::string const& text() const noexcept { return text_; }
    std::vector<Json> const& items() const noexcept { return items_; }
    std::vector<Member> const& members() const noexcept { return members_; }

    //! The member of that name, or null.
    Json const* find(std::string_view key) const noexcept;
    //! Whether this number is a whole one of 64 bits, written without point and exponent.
    bool as_integer(std::int64_t& value) const noexcept;
    //! Whether this number is finite as a double.
    bool as_double(double& value) const;

  private:
    friend class JsonParser;

    Kind kind_ = Kind::kNull;
    bool boolean_ = false;
    std::string text_;
    std::vector<Json> items_;
    std::vector<Member> members_;
};

}  // namespace vim_deploy
