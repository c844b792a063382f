// json_text.cc — a validating scanner for one object.
#include "json_text.h"

namespace kvlane {
namespace {

constexpr int depth_max = 32;  // a fingerprint is flat; deeper is not ours

class Scanner {
  public:
    explicit Scanner(std::string_view text) : text_(text) {}

    void space() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) at_++;
    }
    bool take(char c) {
        space();
        if (at_ >= text_.size() || text_[at_] != c) return false;
        at_++;
        return true;
    }
    bool ended() {
        space();
        return at_ == text_.size();
    }
    size_t at() const { return at_; }

    bool string() {
        if (!take('"')) return false;
        while (at_ < text_.size()) {
            const char c = text_[at_++];
            if (c == '"') return true;
            if (static_cast<unsigned char>(c) < 0x20) return false;
            if (c == '\\' && !escape()) return false;
        }
        return false;
    }

    bool value(int depth) {
        space();
        if (depth > depth_max || at_ >= text_.size()) return false;
        switch (text_[at_]) {
            case '"': return string();
            case '{': return list('{', '}', depth);
            case '[': return list('[', ']', depth);
            case 't': return word("true");
            case 'f': return word("false");
            case 'n': return word("null");
            default: return number();
        }
    }

  private:
    bool escape() {
        if (at_ >= text_.size()) return false;
        const char c = text_[at_++];
        if (c != 'u') return std::string_view("\"\\/bfnrt").find(c) != std::string_view::npos;
        for (int i = 0; i < 4; i++) {
            if (at_ >= text_.size() || std::string_view("0123456789abcdefABCDEF").find(text_[at_++]) == std::string_view::npos) return false;
        }
        return true;
    }
    bool list(char open, char close, int depth) {
        take(open);
        if (take(close)) return true;
        do {
            space();
            if (open == '{' && !(string() && take(':'))) return false;
            if (!value(depth + 1)) return false;
        } while (take(','));
        return take(close);
    }
    bool word(std::string_view expected) {
        if (text_.substr(at_, expected.size()) != expected) return false;
        at_ += expected.size();
        return true;
    }
    bool digits() {
        const size_t begun = at_;
        while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') at_++;
        return at_ > begun;
    }
    bool number() {
        if (text_[at_] == '-') at_++;
        const size_t whole = at_;
        if (!digits() || (text_[whole] == '0' && at_ > whole + 1)) return false;
        if (at_ < text_.size() && text_[at_] == '.') {
            at_++;
            if (!digits()) return false;
        }
        if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
            at_++;
            if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) at_++;
            if (!digits()) return false;
        }
        return true;
    }

    std::string_view text_;
    size_t at_ = 0;
};

}  // namespace

std::optional<std::map<std::string, std::string, std::less<>>> json_members(std::string_view text) {
    std::map<std::string, std::string, std::less<>> members;
    Scanner scan(text);
    if (!scan.take('{')) return std::nullopt;
    if (!scan.take('}')) {
        do {
            scan.space();
            const size_t name_at = scan.at();
            if (!scan.string()) return std::nullopt;
            std::string name(text.substr(name_at + 1, scan.at() - name_at - 2));
            if (!scan.take(':')) return std::nullopt;
            scan.space();
            const size_t value_at = scan.at();
            if (!scan.value(1)) return std::nullopt;
            members[std::move(name)] = std::string(text.substr(value_at, scan.at() - value_at));
        } while (scan.take(','));
        if (!scan.take('}')) return std::nullopt;
    }
    if (!scan.ended()) return std::nullopt;
    return members;
}

std::optional<uint64_t> json_number(std::string_view value) {
    if (value.empty() || value.size() > 15) return std::nullopt;  // 15 digits: below 2^53, as every number on the wire
    uint64_t number = 0;
    for (const char c : value) {
        if (c < '0' || c > '9') return std::nullopt;
        number = number * 10 + static_cast<uint64_t>(c - '0');
    }
    return number;
}

std::optional<std::string> json_plain_string(std::string_view value) {
    if (value.size() < 2 || value.front() != '"' || value.back() != '"') return std::nullopt;
    if (value.find('\\') != std::string_view::npos) return std::nullopt;
    return std::string(value.substr(1, value.size() - 2));
}

std::string json_compact(std::string_view value) {
    std::string compact;
    bool in_string = false;
    for (size_t i = 0; i < value.size(); i++) {
        const char c = value[i];
        if (!in_string && (c == ' ' || c == '\t' || c == '\n' || c == '\r')) continue;
        compact += c;
        if (in_string && c == '\\' && i + 1 < value.size()) compact += value[++i];
        else if (c == '"') in_string = !in_string;
    }
    return compact;
}

std::string json_quoted(std::string_view plain) {
    std::string quoted = "\"";
    for (const char c : plain) {
        if (c == '"' || c == '\\') quoted += '\\';
        if (static_cast<unsigned char>(c) >= 0x20) quoted += c;
    }
    return quoted + "\"";
}

}  // namespace kvlane
