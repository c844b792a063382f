// json_text.h — as much JSON as the small records on a mount need.
//
// The records were written by another process, perhaps by a hand: what does not parse whole is
// refused, so that nothing malformed is ever passed on inside an answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace kvlane {

// The members of one top-level object, name → value as it stands in the text (strings with their quotes).
std::optional<std::map<std::string, std::string, std::less<>>> json_members(std::string_view text);

std::optional<uint64_t> json_number(std::string_view value);                // plain digits only
std::optional<std::string> json_plain_string(std::string_view value);      // a string without escapes
std::string json_compact(std::string_view value);                           // without white space outside of strings
std::string json_quoted(std::string_view plain);

}  // namespace kvlane
