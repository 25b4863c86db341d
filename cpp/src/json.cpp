//! \file json.cpp
#include "json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <locale>
#include <set>
#include <sstream>

#include "utf8.h"

namespace vim_deploy {
namespace {

bool is_digit(char c) noexcept {
    return c >= '0' && c <= '9';
}

void append_utf8(std::string& text, std::uint32_t code) {
    auto const put = [&text](std::uint32_t byte) { text.push_back(static_cast<char>(byte)); };
    if (code < 0x80U) {
        put(code);
    } else if (code < 0x800U) {
        put(0xC0U | code >> 6U);
        put(0x80U | (code & 0x3FU));
    } else if (code < 0x10000U) {
        put(0xE0U | code >> 12U);
        put(0x80U | (code >> 6U & 0x3FU));
        put(0x80U | (code & 0x3FU));
    } else {
        put(0xF0U | code >> 18U);
        put(0x80U | (code >> 12U & 0x3FU));
        put(0x80U | (code >> 6U & 0x3FU));
        put(0x80U | (code & 0x3FU));
    }
}

}  // namespace

//! Recursive descent; the depth limit bounds the stack.
class JsonParser {
  public:
    JsonParser(std::string_view text, JsonLimits const& limits) : text_(text), limits_(limits) {}

    Result<Json> document() {
        Json value;
        if (text_.size() > limits_.bytes) {
            fail("more than " + std::to_string(limits_.bytes) + " bytes");
        } else if (read_value(value, 0)) {
            skip_space();
            if (at_ != text_.size()) {
                fail("something follows the value");
            }
        }
        if (!problem_.empty()) {
            return Error{"", problem_, "", ""};
        }
        return value;
    }

  private:
    bool fail(std::string const& what) {
        if (problem_.empty()) {
            auto const before = text_.substr(0, std::min(at_, text_.size()));
            auto const line = std::count(before.begin(), before.end(), '\n') + 1;
            auto const column = before.size() - (before.rfind('\n') + 1) + 1;
            problem_ =
                "line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + what;
        }
        return false;
    }

    char peek() const noexcept { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_space() noexcept {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' ||
                                      text_[at_] == '\n' || text_[at_] == '\r')) {
            ++at_;
        }
    }

    bool take(char wanted) noexcept {
        if (at_ < text_.size() && text_[at_] == wanted) {
            ++at_;
            return true;
        }
        return false;
    }

    // Whether one more array or object inside `depth` others is one too many.
    bool too_deep(std::size_t depth) {
        return depth >= limits_.depth &&
               !fail("nested deeper than " + std::to_string(limits_.depth));
    }

    bool read_value(Json& value, std::size_t depth) {
        if (++values_ > limits_.values) {
            return fail("more than " + std::to_string(limits_.values) + " values");
        }
        skip_space();
        switch (peek()) {
            case '{':
                return read_object(value, depth);
            case '[':
                return read_array(value, depth);
            case '"':
                value.kind_ = Json::Kind::kText;
                return read_text(value.text_);
            case 't':
                return read_word("true", value, Json::Kind::kBool);
            case 'f':
                return read_word("false", value, Json::Kind::kBool);
            case 'n':
                return read_word("null", value, Json::Kind::kNull);
            default:
                return read_number(value);
        }
    }

    bool read_word(std::string_view word, Json& value, Json::Kind kind) {
        if (text_.substr(at_, word.size()) != word) {
            return fail("a value was expected");
        }
        at_ += word.size();
        value.kind_ = kind;
        value.boolean_ = word == "true";
        return true;
    }

    bool digits() {
        std::size_t const first = at_;
        while (is_digit(peek())) {
            ++at_;
        }
        return at_ > first;
    }

    bool read_number(Json& value) {
        std::size_t const first = at_;
        take('-');
        // A leading zero stands alone.
        bool good = take('0') || digits();
        if (good && take('.')) {
            good = digits();
        }
        if (good && (take('e') || take('E'))) {
            static_cast<void>(take('+') || take('-'));
            good = digits();
        }
        if (!good || is_digit(peek())) {
            return fail("a value was expected");
        }
        value.kind_ = Json::Kind::kNumber;
        value.text_ = std::string(text_.substr(first, at_ - first));
        return true;
    }

    bool read_hex(std::uint32_t& code) {
        code = 0;
        for (int i = 0; i < 4; ++i, ++at_) {
            char const c = peek();
            std::uint32_t digit = 0;
            if (is_digit(c)) {
                digit = static_cast<std::uint32_t>(c - '0');
            } else if (c >= 'a' && c <= 'f') {
                digit = static_cast<std::uint32_t>(c - 'a') + 10;
            } else if (c >= 'A' && c <= 'F') {
                digit = static_cast<std::uint32_t>(c - 'A') + 10;
            } else {
                return fail("four hexadecimal digits were expected");
            }
            code = code << 4U | digit;
        }
        return true;
    }

    bool read_unicode_escape(std::string& out) {
        std::uint32_t code = 0;
        if (!read_hex(code)) {
            return false;
        }
        if (code >= 0xD800 && code <= 0xDBFF) {
            std::uint32_t low = 0;
            if (!take('\\') || !take('u') || !read_hex(low) || low < 0xDC00 || low > 0xDFFF) {
                return fail("half of a surrogate pair");
            }
            code = 0x10000 + ((code - 0xD800) << 10U) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code <= 0xDFFF) {
            return fail("half of a surrogate pair");
        }
        append_utf8(out, code);
        return true;
    }

    bool read_escape(std::string& out) {
        static constexpr std::string_view kNames = "\"\\/bfnrt";
        static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
        char const name = peek();
        if (name == 'u') {
            ++at_;
            return read_unicode_escape(out);
        }
        auto const index = kNames.find(name);
        if (at_ >= text_.size() || index == std::string_view::npos) {
            return fail("an unknown escape");
        }
        ++at_;
        out.push_back(kMeanings[index]);
        return true;
    }

    bool read_text(std::string& out) {
        if (!take('"')) {
            return fail("a text was expected");
        }
        while (at_ < text_.size()) {
            if (take('"')) {
                return true;
            }
            if (take('\\')) {
                if (!read_escape(out)) {
                    return false;
                }
                continue;
            }
            if (static_cast<unsigned char>(text_[at_]) < 0x20) {
                return fail("a control character inside a text");
            }
            std::size_t const length = utf8_length(text_.substr(at_));
            if (length == 0) {
                return fail("not UTF-8");
            }
            out.append(text_.substr(at_, length));
            at_ += length;
        }
        return fail("a text does not end");
    }

    bool read_array(Json& value, std::size_t depth) {
        if (too_deep(depth)) {
            return false;
        }
        ++at_;
        value.kind_ = Json::Kind::kArray;
        skip_space();
        if (take(']')) {
            return true;
        }
        do {
            value.items_.emplace_back();
            if (!read_value(value.items_.back(), depth + 1)) {
                return false;
            }
            skip_space();
        } while (take(','));
        return take(']') || fail("a comma or ] was expected");
    }

    bool read_object(Json& value, std::size_t depth) {
        if (too_deep(depth)) {
            return false;
        }
        ++at_;
        value.kind_ = Json::Kind::kObject;
        skip_space();
        if (take('}')) {
            return true;
        }
        std::set<std::string> keys;
        do {
            skip_space();
            std::string key;
            if (!read_text(key)) {
                return false;
            }
            if (!keys.insert(key).second) {
                return fail("the key \"" + key.substr(0, 80) + "\" stands twice");
            }
            skip_space();
            if (!take(':')) {
                return fail("a colon was expected");
            }
            value.members_.emplace_back(std::move(key), Json());
            if (!read_value(value.members_.back().second, depth + 1)) {
                return false;
            }
            skip_space();
        } while (take(','));
        return take('}') || fail("a comma or } was expected");
    }

    std::string_view text_;
    JsonLimits const& limits_;
    std::size_t at_ = 0;
    std::size_t values_ = 0;
    std::string problem_;
};

Result<Json> Json::parse(std::string_view text, JsonLimits const& limits) {
    return JsonParser(text, limits).document();
}

char const* Json::name(Kind kind) noexcept {
    static constexpr char const* kNames[] = {"null",   "a truth value", "a number",
                                             "a text", "an array",      "an object"};
    return kNames[static_cast<int>(kind)];
}

Json const* Json::find(std::string_view key) const noexcept {
    for (Member const& member : members_) {
        if (member.first == key) {
            return &member.second;
        }
    }
    return nullptr;
}

bool Json::as_integer(std::int64_t& value) const noexcept {
    char const* end = text_.data() + text_.size();
    auto const [last, error] = std::from_chars(text_.data(), end, value);
    return kind_ == Kind::kNumber && error == std::errc() && last == end;
}

bool Json::as_double(double& value) const {
    if (kind_ != Kind::kNumber) {
        return false;
    }
    // Neither strtod, which follows the program's locale, nor from_chars, which compilers of
    // JetPack 5 lack for doubles.
    std::istringstream stream(text_);
    stream.imbue(std::locale::classic());
    stream >> value;
    return !stream.fail() && std::isfinite(value);
}

}  // namespace vim_deploy
