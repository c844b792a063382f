// The floor of a round trip: finds the end of a line on stdin and writes the line back. No parsing, no allocation.
#include <unistd.h>

#include <cstring>

int main() {
  static char buffer[1 << 21];  // twice the longest line of the protocol
  size_t held = 0;
  for (;;) {
    const ssize_t got = read(0, buffer + held, sizeof buffer - held);
    if (got <= 0) return 0;
    held += static_cast<size_t>(got);
    while (const void* end = std::memchr(buffer, '\n', held)) {
      const size_t line = static_cast<size_t>(static_cast<const char*>(end) - buffer) + 1;
      for (size_t out = 0; out < line;) {
        const ssize_t put = write(1, buffer + out, line - out);
        if (put <= 0) return 1;
        out += static_cast<size_t>(put);
      }
      held -= line;
      std::memmove(buffer, buffer + line, held);
    }
  }
}
