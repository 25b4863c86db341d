//! \file text.cpp
#include "vim_deploy/text.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iterator>

#include "utf8.h"

namespace vim_deploy {
namespace {

struct Range {
    std::uint32_t first, last;
};

// Controls, formats, separators but the space, and private characters (general categories Cc, Cf,
// Zl, Zp, Zs, Co): what Python's str.isprintable refuses, without the characters that are not
// assigned yet, which depend on the version of Unicode.
constexpr Range kUnprintable[] = {
    {0x0, 0x1F},        {0x7F, 0xA0},       {0xAD, 0xAD},       {0x600, 0x605},
    {0x61C, 0x61C},     {0x6DD, 0x6DD},     {0x70F, 0x70F},     {0x890, 0x891},
    {0x8E2, 0x8E2},     {0x1680, 0x1680},   {0x180E, 0x180E},   {0x2000, 0x200F},
    {0x2028, 0x202F},   {0x205F, 0x2064},   {0x2066, 0x206F},   {0x3000, 0x3000},
    {0xE000, 0xF8FF},   {0xFEFF, 0xFEFF},   {0xFFF9, 0xFFFB},   {0x110BD, 0x110BD},
    {0x110CD, 0x110CD}, {0x13430, 0x13438}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
    {0xE0001, 0xE0001}, {0xE0020, 0xE007F}, {0xF0000, 0xFFFFD}, {0x100000, 0x10FFFD}};

bool prints(std::uint32_t code) noexcept {
    return std::none_of(std::begin(kUnprintable), std::end(kUnprintable),
                        [code](Range range) { return code >= range.first && code <= range.last; });
}

// The code point of a well-formed character.
std::uint32_t code_of(std::string_view character) noexcept {
    auto const lead = static_cast<unsigned char>(character[0]);
    std::uint32_t code = character.size() == 1 ? lead : lead & (0xFFU >> (character.size() + 1));
    for (char const byte : character.substr(1)) {
        code = code << 6U | (static_cast<unsigned char>(byte) & 0x3FU);
    }
    return code;
}

// As Python's `ascii` writes it.
void write_out(std::string& out, std::uint32_t code) {
    char text[16];
    char const* const form = code > 0xFFFF ? "\\U%08x" : code > 0xFF ? "\\u%04x" : "\\x%02x";
    switch (code) {
        case '\n':
            out += "\\n";
            return;
        case '\r':
            out += "\\r";
            return;
        case '\t':
            out += "\\t";
            return;
        default:
            std::snprintf(text, sizeof text, form, static_cast<unsigned>(code));
            out += text;
    }
}

std::string cleaned(std::string_view text, bool keep_line_ends) {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        std::size_t const length = utf8_length(text);
        if (length == 0) {
            write_out(out, static_cast<unsigned char>(text[0]));
            text.remove_prefix(1);
            continue;
        }
        std::string_view const character = text.substr(0, length);
        std::uint32_t const code = code_of(character);
        if (prints(code) || (keep_line_ends && code == '\n')) {
            out += character;
        } else {
            write_out(out, code);
        }
        text.remove_prefix(length);
        // What an escape begins is written out with it: alone it would still read as a command
        // wherever the escape is added or decoded again.
        if (code == 0x1B && !text.empty() && text[0] > ' ' && text[0] < 0x7F) {
            write_out(out, static_cast<unsigned char>(text[0]));
            text.remove_prefix(1);
        }
    }
    return out;
}

}  // namespace

std::size_t utf8_length(std::string_view text) noexcept {
    auto const byte = [text](std::size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
    };
    auto const follows = [&byte](std::size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
        return byte(i) >= low && byte(i) <= high;
    };
    unsigned const lead = byte(0);
    if (lead < 0x80) {
        return text.empty() ? 0 : 1;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
        return follows(1) ? 2 : 0;
    }
    if (lead >= 0xE0 && lead <= 0xEF) {
        bool const second = follows(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF);
        return second && follows(2) ? 3 : 0;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        bool const second = follows(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF);
        return second && follows(2) && follows(3) ? 4 : 0;
    }
    return 0;
}

std::string printable(std::string_view text) {
    return cleaned(text, true);
}

std::string printable_line(std::string_view text) {
    return cleaned(text, false);
}

}  // namespace vim_deploy
