// plain_text.h — names and contents that other programs made up, told so that they stay what they are.
#pragma once

#include <string>
#include <string_view>

namespace kvlane {

// UTF-8 without a control character: on one line, and nothing that a terminal would act upon.
bool one_line_of_text(std::string_view text);

// "%0A" for a line feed: every byte but visible ASCII, and "%" itself.
std::string percent_escaped(std::string_view bytes);

}  // namespace kvlane
