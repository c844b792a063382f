// test.h — just enough to write tests as sentences.
//
//     TEST("an operation dropped from the queue is never heard of again") {
//         CHECK(pool.state().queued == 0);
//         CHECK_EQUAL(answer.status, Status::ok);
//     }
//
// A failed check is printed and counted, and the test goes on. Tests run one after another in one
// process, which ends with _exit: threads that are stuck on purpose stay stuck.
#pragma once

#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <type_traits>

namespace kvlane::test {

struct Registration {
    Registration(const char* sentence, void (*body)());
};

void fail(const char* file, int line, const std::string& what);

// This test cannot be made here: said aloud, and counted. True, for `if (no_such_thing && skipped("…")) return;`
bool skipped(const std::string& why);

// Waits for `what` to become true, 5 s at most; a test never waits for time as such.
bool eventually(const std::function<bool()>& what);

template <typename T>
std::string show(const T& value) {
    std::ostringstream text;
    if constexpr (std::is_enum_v<T>) {
        text << static_cast<long long>(value);
    } else if constexpr (requires { text << value; }) {
        text << value;
    } else {
        text << "?";
    }
    return text.str();
}

template <typename A, typename B>
void check_equal(const char* file, int line, const char* expression, const A& got, const B& wanted) {
    if (!(got == wanted)) fail(file, line, std::string(expression) + " is " + show(got) + ", wanted " + show(wanted));
}

}  // namespace kvlane::test

#define KVLANE_JOIN_(a, b) a##b
#define KVLANE_JOIN(a, b) KVLANE_JOIN_(a, b)
#define TEST(sentence)                                                                                                       \
    static void KVLANE_JOIN(test_at_line_, __LINE__)();                                                                      \
    static const ::kvlane::test::Registration KVLANE_JOIN(registered_at_line_, __LINE__)(sentence, KVLANE_JOIN(test_at_line_, __LINE__)); \
    static void KVLANE_JOIN(test_at_line_, __LINE__)()
#define CHECK(condition) ((condition) ? void() : ::kvlane::test::fail(__FILE__, __LINE__, "not so: " #condition))
#define CHECK_EQUAL(got, wanted) ::kvlane::test::check_equal(__FILE__, __LINE__, #got, got, wanted)
#define CHECK_EVENTUALLY(condition) (::kvlane::test::eventually([&] { return static_cast<bool>(condition); }) ? void() : ::kvlane::test::fail(__FILE__, __LINE__, "not so after 5 s: " #condition))
