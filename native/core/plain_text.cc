#include "plain_text.h"

#include <cstddef>
#include <cstdint>

namespace kvlane {
namespace {

// Bytes of the character that begins here; 0: it is none, or not in its only spelling.
size_t character(std::string_view text) {
    const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t first = at(0);
    if (first < 0x80) return 1;
    const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return 0;
    for (size_t i = 1; i < bytes; i++) {
        if ((at(i) & 0xc0) != 0x80) return 0;
    }
    if ((first == 0xe0 && at(1) < 0xa0) || (first == 0xf0 && at(1) < 0x90)) return 0;  // longer than needed
    if ((first == 0xed && at(1) > 0x9f) || (first == 0xf4 && at(1) > 0x8f)) return 0;  // surrogates; beyond Unicode
    return bytes;
}

}  // namespace

bool one_line_of_text(std::string_view text) {
    while (!text.empty()) {
        const auto first = static_cast<uint8_t>(text[0]);
        if (first < 0x20 || first == 0x7f) return false;
        const size_t bytes = character(text);
        if (bytes == 0 || (first == 0xc2 && static_cast<uint8_t>(text[1]) < 0xa0)) return false;  // C1 controls
        text.remove_prefix(bytes);
    }
    return true;
}

std::string percent_escaped(std::string_view bytes) {
    static constexpr char digits[] = "0123456789ABCDEF";
    std::string text;
    for (const char c : bytes) {
        const auto byte = static_cast<uint8_t>(c);
        if (byte > 0x20 && byte < 0x7f && c != '%') {
            text += c;
        } else {
            text += '%';
            text += digits[byte >> 4];
            text += digits[byte & 15];
        }
    }
    return text;
}

}  // namespace kvlane
